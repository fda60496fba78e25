-- What all scripts that write the log of a token share; decide.lua describes the log. This is in front of each of them.

-- The layout in bytes: what is before the windows' lengths; shape and front without their windows; a window in both; the
-- staging area. Numbers of a window and stamps take 4.
local LENGTHS, HEADER, WINDOW, STAGING, STAGING_BYTES = 7, 14, 12, 8, 32
local WRAP = 4294967296
-- A clock that is this much (ms) behind the newest stamp is a new clock: the log moves to it. If it is less, time stops
-- for this token until the clock has caught up.
local JUMP = 5000

-- The slots of a new ring, `at` bytes behind the start of the log, that holds `deep` stamps: it has room for `more`, and then
-- up to the next size class of the allocator (four to each power of two), of which a string's own header takes up to 10
-- bytes. (It captures nothing, so that the scripts that don't need it hardly pay for it.)
local function ring_slots(at, deep, more)
  if deep == 0 then return 0 end
  local fixed, class = at + 10, 16
  local size = fixed + 4 * (deep + more)
  while 8 * class < size do class = 2 * class end
  size = size + (-size) % class - fixed
  return (size - size % 4) / 4
end

