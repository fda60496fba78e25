-- What all scripts that write the log of a token share; decide.lua describes the log. This is in front of each of them.

-- The layout in bytes: what is before the windows' lengths; shape and front without their windows; a window in both; the
-- staging area. Numbers of a window and stamps take 4.
local LENGTHS, HEADER, WINDOW, STAGING, STAGING_BYTES = 7, 14, 12, 8, 32
local WRAP = 4294967296
-- A clock that is this much (ms) behind the newest stamp is a new clock: the log moves to it. If it is less, time stops
-- for this token until the clock has caught up.
local JUMP = 5000

