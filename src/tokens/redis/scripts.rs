//! What Redis does with records in one step.

use crate::store::Script;

pub(super) struct Scripts {
    pub(super) write: Script,
    pub(super) settle: Script,
    pub(super) import: Script,
    pub(super) add_usage: Script,
    pub(super) add_refused: Script,
    pub(super) page: Script,
    pub(super) add: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        let [write, settle, import] = [WRITE, SETTLE, IMPORT].map(Script::new);
        let [add_usage, add_refused, page, add] = [ADD_USAGE, ADD_REFUSED, READ_PAGE, ADD].map(Script::new);
        Self { write, settle, import, add_usage, add_refused, page, add }
    }
}

/// Writes a record if its version is still the expected one (empty: if there is none), together with an entry for the audit trail.
/// Answers with the new version and all entries that are due, or nil. A change is announced, so that instances with open
/// calls of the token read it again. A user of Redis without the right to publish can write all the same.
///
/// A change is made even if Redis is full: it lets a script write on that has begun with a command that frees memory.
const WRITE: &str = r"
local old = redis.call('HGET', KEYS[1], 'version')
if (old or '') ~= ARGV[1] then return false end
local time = redis.call('TIME')
local version = time[1] * 1000000 + time[2]
if old and version <= tonumber(old) then version = tonumber(old) + 1 end
version = string.format('%.0f', version)
local due = version .. ' ' .. ARGV[3]
local before = redis.call('HGET', KEYS[1], 'audit')
if before then due = before .. '\n' .. due end
if old then redis.call('HDEL', KEYS[1], 'audit') end
redis.call('HSET', KEYS[1], 'version', version, 'record', ARGV[2], 'audit', due)
if old then redis.pcall('PUBLISH', ARGV[4], ARGV[5]) end
return {version, due}
";

/// Adds members to a sorted set (ARGV as for ZADD), even if Redis is full: as above.
const ADD: &str = r"
redis.call('ZREM', KEYS[1], '')
return redis.call('ZADD', KEYS[1], unpack(ARGV))
";

/// Forgets the entries beside a record, if they are still those that were taken to the trail.
const SETTLE: &str = r"
if redis.call('HGET', KEYS[1], 'audit') == ARGV[1] then redis.call('HDEL', KEYS[1], 'audit') end
";

/// Writes a record if there is none of its id; answers whether it did.
const IMPORT: &str = r"
if redis.call('HEXISTS', KEYS[1], 'version') == 1 then return 0 end
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], 'version', string.format('%.0f', time[1] * 1000000 + time[2]), 'record', ARGV[1])
return 1
";

/// Adds to the use of a token, unless its record is gone. Its version stays as it is.
/// ARGV: admitted requests, the second of the last one (empty: none), the hour, refused requests, hours that are kept.
const ADD_USAGE: &str = r"
if redis.call('HEXISTS', KEYS[1], 'version') == 0 then return 0 end
local admitted, hour, refused, kept = tonumber(ARGV[1]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
if ARGV[2] ~= '' then
  redis.call('HINCRBY', KEYS[1], 'requests', ARGV[1])
  local used = redis.call('HGET', KEYS[1], 'used')
  if not used or tonumber(used) < tonumber(ARGV[2]) then redis.call('HSET', KEYS[1], 'used', ARGV[2]) end
end
local SIZE, MOST = 12, 4294967295
local length = redis.call('STRLEN', KEYS[2])
local function number(at) return (struct.unpack('>I4', redis.call('GETRANGE', KEYS[2], at, at + 3))) end
local function entry(a, r) return struct.pack('>I4I4I4', hour, math.min(a, MOST), math.min(r, MOST)) end
-- Almost always it is the last entry, or a new one behind it.
local at = length
while at > 0 and number(at - SIZE) > hour do at = at - SIZE end
if at > 0 and number(at - SIZE) == hour then
  redis.call('SETRANGE', KEYS[2], at - SIZE, entry(number(at - 8) + admitted, number(at - 4) + refused))
elseif at == length then
  redis.call('APPEND', KEYS[2], entry(admitted, refused))
  local first = 0
  while number(first) <= hour - kept do first = first + SIZE end
  if first > 0 then redis.call('SET', KEYS[2], redis.call('GETRANGE', KEYS[2], first, -1)) end
else
  local before = at > 0 and redis.call('GETRANGE', KEYS[2], 0, at - 1) or ''
  redis.call('SET', KEYS[2], before .. entry(admitted, refused) .. redis.call('GETRANGE', KEYS[2], at, -1))
end
redis.call('EXPIRE', KEYS[2], kept * 3600 + 86400)
return 1
";

/// Adds to the refused requests of tokens. ARGV: a token and a number, again and again.
const ADD_REFUSED: &str = r"
for index = 1, #ARGV, 2 do redis.call('ZINCRBY', KEYS[1], ARGV[index + 1], ARGV[index]) end
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1001)
redis.call('EXPIRE', KEYS[1], 7200)
";

/// A page of the index behind a place in it (a score and an id; both empty: its beginning), by bisection if that id is gone.
const READ_PAGE: &str = r"
local first = 0
if ARGV[2] ~= '' then
  local rank = redis.call('ZRANK', KEYS[1], ARGV[2])
  if rank then
    first = rank + 1
  else
    local low, high, score = 0, redis.call('ZCARD', KEYS[1]), tonumber(ARGV[1])
    while low < high do
      local middle = math.floor((low + high) / 2)
      local at = redis.call('ZRANGE', KEYS[1], middle, middle, 'WITHSCORES')
      local other = tonumber(at[2])
      if other < score or (other == score and at[1] <= ARGV[2]) then low = middle + 1 else high = middle end
    end
    first = low
  end
end
return redis.call('ZRANGE', KEYS[1], first, first + ARGV[3] - 1, 'WITHSCORES')
";
