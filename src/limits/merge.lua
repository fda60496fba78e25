-- Adds admissions that an instance made by itself while Redis was unreachable to their token's log, where they would be had they
-- been decided here. decide.lua says what the log looks like, and goes on from it as if nothing had happened. Atomic.
--
-- KEYS[1]  the token's log
-- KEYS[2]  what was merged into it, a sorted set of names by when they were (Unix ms); and `reset`, when the log was cleared
-- ARGV[1]  the name of these admissions: they are merged once, however often they are sent
-- ARGV[2]  the windows (ms) of the token's plan, shortest first, 4 bytes each
-- ARGV[3]  how old admissions were (ms), the latest first, and how many were that old, 4 bytes each …
-- ARGV[4]  … when the clock here said this (Unix ms): a call may be carried out long after it was sent
-- ARGV[5]  in place of ARGV[3] and [4], how many admissions to take back …
-- ARGV[6]  … that were logged when the clock here said this (Unix ms)
--
-- Answers how many of them the log has got: not those that no window sees any more, nor those from before it was cleared.
-- If they were merged before, -1. The log may then hold more than the plan admits; it admits again when that has left.
--
-- Integers are unsigned and little-endian, as in the log.

-- So many batches are remembered as merged.
local MAX_NAMES = 1000
local call, pack, unpack = redis.call, struct.pack, struct.unpack

if call('ZSCORE', KEYS[2], ARGV[1]) then return -1 end
local time = call('TIME')
local micros = time[2] + 0
local clock = time[1] * 1000 + (micros - micros % 1000) / 1000

-- The log as it is: `old` has the stamps that it remembers, newest first, `head` is the first of them.
local log = call('GET', KEYS[1])
local windows, newest, head, old = ARGV[2], clock, clock % WRAP, ''
local longest = unpack('<I', windows, #windows - 3)
if log then
  local width, first = unpack('<BI3', log)
  local front, staging = LENGTHS + 4 * width, HEADER + WINDOW * width
  local known, held = log:sub(LENGTHS + 1, front), unpack('<I', log, staging - 8 + 1)
  local staged
  staged, newest = unpack('<BI6', log, front + 1)
  head = unpack('<I', log, staging + 1)
  if newest - clock > JUMP then newest = clock end
  old = log:sub(staging + 1, staging + 4 * (staged < held and staged or held))
  if held > staged then
    local ring, deep = staging + STAGING_BYTES, 4 * (held - staged)
    local ahead = log:sub(ring + 4 * first + 1, ring + 4 * first + deep)
    old = old .. ahead .. log:sub(ring + 1, ring + deep - #ahead)
  end
  -- The plan may be another one by now; whichever looks back further needs the most.
  local length = unpack('<I', known, 4 * width - 3)
  if length >= longest then windows, longest = known, length end
end
local now = newest > clock and log and newest or clock

-- Where a row of numbers that grow passes a bound: the last of `low + 1 … high - 1` for which `inside` holds, or `low`. It
-- looks near the start first.
local function last(low, high, inside)
  local step = 1
  while high - low > 1 do
    local i = low + step
    if i >= high then i = (low + high - (low + high) % 2) / 2 end
    if inside(i) then
      low, step = i, step * 2
    else
      high, step = i, high
    end
  end
  return low
end

-- Of what is offered, the part that a window sees.
local ages, bound, waited = ARGV[3], longest - (now - clock), clock - ARGV[4]
if waited < 0 then waited = 0 end
local function age_offered(i) return unpack('<I', ages, 8 * i - 7) + waited end
local reset = tonumber(call('ZSCORE', KEYS[2], 'reset') or nil)
if reset and reset - clock <= JUMP and clock - reset < bound then bound = clock - reset end
local runs = last(0, #ages / 8 + 1, function(i) return age_offered(i) < bound end)
local taken = tonumber(ARGV[5] or 0)
if runs == 0 and taken == 0 or taken > 0 and not log then return 0 end

-- From here on ages are counted from what will be the newest stamp.
local function age_of(stamps, i) return (head - unpack('<I', stamps, 4 * i - 3)) % WRAP end
local function count(stamps, length)
  return last(0, #stamps / 4 + 1, function(i) return age_of(stamps, i) < length end)
end
if taken > 0 then
  local age, all = newest - ARGV[6], #old / 4 + 1
  local younger = last(0, all, function(i) return age_of(old, i) < age end)
  local found = last(younger, all, function(i) return age_of(old, i) <= age end) - younger
  if found < taken then taken = found end
  if taken == 0 then return 0 end
  old = old:sub(1, 4 * younger) .. old:sub(4 * (younger + taken) + 1)
  if old == '' then
    call('DEL', KEYS[1])
    return 0
  end
  newest = newest - age_of(old, 1)
  head = unpack('<I', old)
end
local latest = runs > 0 and clock - age_offered(1) or newest
if not log then
  newest, head = latest, latest % WRAP
elseif latest > newest then
  local later = latest - newest
  old = old:sub(1, 4 * count(old, longest - later))
  newest, head = latest, (head + later) % WRAP
end

-- Both rows become one: runs of the old one, and between them what is new.
local pieces, from, fresh = {}, 1, 0
for i = 1, runs do
  local age = newest - clock + age_offered(i)
  local to = last(from - 1, #old / 4 + 1, function(k) return age_of(old, k) <= age end)
  if to >= from then
    pieces[#pieces + 1] = old:sub(4 * from - 3, 4 * to)
    from = to + 1
  end
  local count = unpack('<I', ages, 8 * i - 3)
  pieces[#pieces + 1] = string.rep(pack('<I', (head - age) % WRAP), count)
  fresh = fresh + count
end
pieces[#pieces + 1] = old:sub(4 * from - 3)
local stamps = table.concat(pieces)

-- The log anew.
local width, held = #windows / 4, #stamps / 4
local staged = held < STAGING and held or STAGING
local deep = held - staged
local slots = ring_slots(width, deep)
local value = {pack('<BI3I3', width, 0, slots), windows, pack('<BI6', staged, newest)}
for j = 1, width do
  local inside = count(stamps, (unpack('<I', windows, 4 * j - 3)))
  value[#value + 1] = pack('<I', inside) .. stamps:sub(4 * inside - 3, 4 * inside)
end
value[#value + 1] = stamps:sub(1, 4 * staged) .. string.rep('\0', 4 * (STAGING - staged))
value[#value + 1] = stamps:sub(4 * staged + 1) .. string.rep('\0', 4 * (slots - deep))
local margin = longest > 240000 and longest / 4 or 60000
local lives = string.format('%d', longest + margin + now - clock)
call('SET', KEYS[1], table.concat(value), 'PX', lives)

-- A name is remembered for as long as a window could see what it names.
call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%d', clock - longest))
call('ZREMRANGEBYRANK', KEYS[2], '0', string.format('%d', -MAX_NAMES))
call('ZADD', KEYS[2], string.format('%d', clock), ARGV[1])
call('PEXPIRE', KEYS[2], lives)
return fresh
