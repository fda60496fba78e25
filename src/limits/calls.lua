-- The leases of a token's open calls, once they are taken; decide.lua takes them, together with the decision on the
-- request.
--
-- KEYS[1]  the leases, a sorted set of their names by when they end (Unix ms); those that have ended are kept for an hour
-- ARGV[1]  what to do: renew or end the leases that follow, or count all that have not ended
-- ARGV[2…] names of leases

local verb = ARGV[1]
local LEASE, MAX_LEASE, KEPT = 30000, 35000, 3600000
if verb == 'end' then
  for i = 2, #ARGV do redis.call('ZREM', KEYS[1], ARGV[i]) end
  return 0
end
local time = redis.call('TIME')
local clock = time[1] * 1000 + (time[2] - time[2] % 1000) / 1000
if verb == 'renew' then
  -- Also one that is not there any more: the call is open all the same.
  local ends = string.format('%d', clock + LEASE)
  for i = 2, #ARGV do redis.call('ZADD', KEYS[1], ends, ARGV[i]) end
  redis.call('PEXPIRE', KEYS[1], string.format('%d', KEPT))
  return 0
end
return redis.call('ZCOUNT', KEYS[1], string.format('(%d', clock), string.format('%d', clock + MAX_LEASE))
