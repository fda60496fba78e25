//! What instances do in Redis in one step.

/// Writes one instance (ARGV: its id, its report, how long silent ones are kept in milliseconds), and returns all with the time.
pub(super) const BEAT: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f ', now) .. ARGV[2])
local all, kept = redis.call('HGETALL', KEYS[1]), {}
for index = 1, #all, 2 do
  local seen = tonumber(string.match(all[index + 1], '^%d+') or 0)
  if now - seen > tonumber(ARGV[3]) then
    redis.call('HDEL', KEYS[1], all[index])
  else
    kept[#kept + 1] = all[index + 1]
  end
end
return {string.format('%.0f', now), kept}
";

/// Adds an answer (ARGV: it, and how long it is kept in milliseconds).
pub(super) const ANSWER: &str = r"
redis.call('RPUSH', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
";
