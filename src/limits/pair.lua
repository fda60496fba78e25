-- One decision on two logs of a token: its plan's limits on one, and on the other those that a route has of its own. The
-- request is admitted, and logged in both, if all of them have room, and else in none. decide.lua is in front of this as
-- the function `decide`.
--
-- KEYS[1]  as there
-- KEYS[2]  as there
-- KEYS[3]  the token's log for the route
-- KEYS[4]  only if the request opens a call: the leases
-- ARGV[1]  as there
-- ARGV[2]  as there
-- ARGV[3]  the route's limits in the form of the plan's, with the same cost; at least one
-- ARGV[4]  with KEYS[4]: how many calls the token may have open
-- ARGV[5]  with KEYS[4]: the name of the new call's lease
-- ARGV[6]  with KEYS[4]: as ARGV[5] there
--
-- Answers nil as decide.lua does; otherwise a byte that says how long its answer on the plan is, that answer, and the one on
-- the route. The latter says whether the request was admitted. If it was not, both are denials, even of a log that has
-- room; a plan without limits is answered with '' all the same.

local time = redis.call('TIME')
local pack, unpack = struct.pack, struct.unpack
local TRIED = 2147483648
-- Bytes in front of the first limit in ARGV[3], and of the first window in a denial. Both take 8 for each limit.
local LIMITS, WINDOWS = 4, 7

-- Limits with a cost that is only tried.
local function trial(limits)
  return pack('<I', unpack('<I', limits) + TRIED) .. limits:sub(LIMITS + 1)
end

local route = decide({KEYS[1], KEYS[3]}, {ARGV[1], trial(ARGV[3]), time = time})
if not route then return false end
local cost, has_room = unpack('<I', ARGV[3]), true
for i = 1, #ARGV[3] - LIMITS, 8 do
  if unpack('<I', route, WINDOWS + i) + cost > unpack('<I', ARGV[3], LIMITS + i) then has_room = false end
end

local plan
if has_room then
  plan = decide({KEYS[1], KEYS[2], KEYS[4]}, {false, ARGV[2], ARGV[4], ARGV[5], ARGV[6], time = time})
  local verdict = plan:byte()
  -- The clock is the same, so there still is room.
  if not verdict or verdict > 0 and verdict < 255 then
    route = decide({KEYS[1], KEYS[3]}, {false, ARGV[3], time = time})
  end
else
  plan = decide({KEYS[1], KEYS[2]}, {false, #ARGV[2] > LIMITS and trial(ARGV[2]) or ARGV[2], time = time})
end
return string.char(#plan) .. plan .. route
