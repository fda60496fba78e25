-- Adds admissions that an instance made by itself while Redis was unreachable to their token's log, where they would be had they
-- been decided here. decide.lua says what the log looks like, and goes on from it as if nothing had happened. Atomic.
--
-- KEYS[1]  the token's log
-- KEYS[2]  what was merged into it, a sorted set of names by when they were (Unix ms); and `reset`, when the log was cleared
-- ARGV[1]  the name of these admissions: they are merged once, however often they are sent
-- ARGV[2]  the largest limit of the token's plan, and its windows (ms), shortest first; 4 bytes each
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

-- The log as it is: `old` are the strings with the stamps that it remembers, `held` in all, newest first; `head` is the first
-- of them. A log may take megabytes: none of its strings is copied more often than it must.
local most, windows, newest, head, old, held = unpack('<I', ARGV[2]), ARGV[2]:sub(5), clock, clock % WRAP, {}, 0
local longest = unpack('<I', windows, #windows - 3)
local log = call('GETRANGE', KEYS[1], '0', '0') ~= ''
if log then
  local function part(at, bytes)
    return call('GETRANGE', KEYS[1], string.format('%d', at), string.format('%d', at + bytes - 1))
  end
  local width, first, slots = unpack('<BI3I3', part(0, LENGTHS))
  local front, staging = LENGTHS + 4 * width, HEADER + WINDOW * width
  local ring = staging + STAGING_BYTES
  local start = part(0, ring)
  local known, staged = start:sub(LENGTHS + 1, front)
  -- It may be kept for a longer window than its plan's, the second one.
  local is_kept = unpack('<I', known) == 0
  held = unpack('<I', start, is_kept and front + HEADER - LENGTHS + 8 + 1 or staging - 8 + 1)
  staged, newest = unpack('<BI6', start, front + 1)
  head = unpack('<I', start, staging + 1)
  if newest - clock > JUMP then newest = clock end
  old[1] = start:sub(staging + 1, staging + 4 * (staged < held and staged or held))
  if held > staged then
    local deep, ahead = held - staged, slots - first
    if ahead > deep then ahead = deep end
    old[2] = part(ring + 4 * first, 4 * ahead)
    if deep > ahead then old[3] = part(ring, 4 * (deep - ahead)) end
  end
  -- The plan may be another one by now; whichever looks back further needs the most.
  local length = unpack('<I', known, is_kept and 5 or 4 * width - 3)
  if length >= longest then windows, longest = known, length end
  local tail = part(ring + 4 * slots, 4)
  if is_kept then tail = start:sub(front + HEADER - LENGTHS + 1) end
  if #tail >= 4 and unpack('<I', tail) > most then most = unpack('<I', tail) end
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
local function stamp_of(i)
  local at = 4 * i - 3
  for _, stamps in ipairs(old) do
    if at < #stamps then return (unpack('<I', stamps, at)) end
    at = at - #stamps
  end
end
local function age_of(i) return (head - stamp_of(i)) % WRAP end
-- How many old stamps, from the newest on, are younger than this.
local function younger(age) return last(0, held + 1, function(i) return age_of(i) < age end) end
-- Adds the old stamps `from … to` to a list of strings.
local function add(list, from, to)
  local at = 0
  for _, stamps in ipairs(old) do
    local left, right = 4 * (from - 1) - at + 1, 4 * to - at
    if left < 1 then left = 1 end
    if right > #stamps then right = #stamps end
    if left <= right then list[#list + 1] = stamps:sub(left, right) end
    at = at + #stamps
  end
end
if taken > 0 then
  local age = newest - ARGV[6]
  local before = younger(age)
  local found = younger(age + 1) - before
  if found < taken then taken = found end
  if taken <= 0 then return 0 end
  if taken == held then
    call('DEL', KEYS[1])
    return 0
  end
  local left = {}
  add(left, 1, before)
  add(left, before + taken + 1, held)
  old, held = left, held - taken
  newest = newest - age_of(1)
  head = stamp_of(1)
end
local latest = runs > 0 and clock - age_offered(1) or newest
if not log then
  newest, head = latest, latest % WRAP
elseif latest > newest then
  local later = latest - newest
  held = younger(longest - later)
  newest, head = latest, (head + later) % WRAP
end

-- Both rows become one: runs of the old one, and between them what is new.
local pieces, from, fresh, ages_new, counts_new = {}, 1, 0, {}, {}
for i = 1, runs do
  local age, count = newest - clock + age_offered(i), unpack('<I', ages, 8 * i - 3)
  local to = last(from - 1, held + 1, function(k) return age_of(k) <= age end)
  add(pieces, from, to)
  from = to + 1
  pieces[#pieces + 1] = string.rep(pack('<I', (head - age) % WRAP), count)
  fresh = fresh + count
  ages_new[i], counts_new[i] = age, fresh
end
add(pieces, from, held)

-- The log anew.
local width, all = #windows / 4, held + fresh
local staged = all < STAGING and all or STAGING
local deep = all - staged
local slots = ring_slots(width, deep)
local value = {pack('<BI3I3', width, 0, slots), windows, pack('<BI6', staged, newest)}
for j = 1, width do
  local length = unpack('<I', windows, 4 * j - 3)
  local inside, run = younger(length), last(0, runs + 1, function(i) return ages_new[i] < length end)
  local oldest = inside > 0 and age_of(inside) or 0
  if run > 0 and ages_new[run] > oldest then oldest = ages_new[run] end
  if length == 0 then
    value[#value + 1] = pack('<II', most, (head + 1) % WRAP)
  else
    value[#value + 1] = pack('<II', inside + (counts_new[run] or 0), (head - oldest) % WRAP)
  end
end
-- The newest stamps are staged, the others follow.
local missing = 4 * staged
local ring = {}
for _, piece in ipairs(pieces) do
  if missing > 0 then
    value[#value + 1] = piece:sub(1, missing)
    if #piece > missing then ring[#ring + 1] = piece:sub(missing + 1) end
    missing = missing > #piece and missing - #piece or 0
  else
    ring[#ring + 1] = piece
  end
end
value[#value + 1] = string.rep('\0', 4 * (STAGING - staged))
local margin = longest > 240000 and longest / 4 or 60000
local lives = string.format('%d', longest + margin + now - clock)

-- A name is remembered for as long as a window could see what it names. (This is the first write because a Redis whose memory
-- is full refuses it, and then all of this.)
call('ZADD', KEYS[2], string.format('%d', clock), ARGV[1])
call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%d', clock - longest))
call('ZREMRANGEBYRANK', KEYS[2], '0', string.format('%d', -MAX_NAMES - 1))
call('PEXPIRE', KEYS[2], lives)

-- A string of this length, filled piece by piece: long ones by themselves.
local LONG, at = 65536, 0
local function write(parts)
  local text = table.concat(parts)
  if text ~= '' then call('SETRANGE', KEYS[1], string.format('%d', at), text) end
  at = at + #text
end
call('DEL', KEYS[1])
local size = HEADER + WINDOW * width + STAGING_BYTES + 4 * slots
call('SETRANGE', KEYS[1], string.format('%d', size), pack('<I', most))
local parts = value
for _, piece in ipairs(ring) do
  if #piece >= LONG then
    write(parts)
    parts = {}
    write({piece})
  else
    parts[#parts + 1] = piece
  end
end
write(parts)
call('PEXPIRE', KEYS[1], lives)
return fresh
