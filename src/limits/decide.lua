-- One decision: may this token have `cost` more requests now? Compares the token's version, tests every window of its
-- plan exactly against one log of admissions and, if all have room, adds to it. Atomic, as every script is.
--
-- KEYS[1]  the token's record, a hash with the field `version`
-- KEYS[2]  the token's log, the string described below
-- ARGV[1]  the version that the caller knows
-- ARGV[2]  the plan: cost, then limit and window (ms) of each of its limits, shortest window first; 4 bytes each
--
-- Answers nil if the version is another one or the record is gone, with nothing counted; '' if the plan has no limits;
-- otherwise 1 byte verdict (1 admitted), 6 bytes this server's clock (Unix ms), then per limit 4 bytes requests in its
-- window (these included if admitted) and 4 bytes ms until the window frees a slot; if denied, 4 bytes more: the ms for
-- which all these numbers stay what they are.
--
-- The log costs 4 bytes per admission: its stamp in ms modulo 2^32. Only ages relative to the newest stamp are ever
-- computed, so neither the wrap after 49 days nor a change of the clock matters. All integers are unsigned and
-- little-endian.
--
--   header   6  newest: the clock's reading at the newest stamp (Unix ms)
--            1  staged: stamps in the staging area
--            1  windows: how many follow
--            3  first: the slot of the ring with its newest stamp
--            3  slots: the size of the ring
--   windows  4  length (ms)             }  each; shortest first; as of the newest stamp. Whatever lies behind the
--            4  count                   }  stamps that the longest window counts is forgotten and may be garbage
--            4  oldest counted stamp    }
--   staging  8 stamps of 4 bytes, newest first: most admissions write the front of the string and nothing else
--   ring     stamps, newest first from slot `first` on, round the end; the next goes to the slot before `first`
--
-- Counts are exact without counting: while a window's oldest counted stamp is inside, nothing has left it. When it is
-- outside, a few steps from the old end, then bisection, find the new oldest.
--
-- What shapes the code is the price of things, in ns: any redis.call 500, a read of 1 KB 1,500, struct.pack or unpack 90
-- and 15 per field, a new string 70, a new table 50.

if redis.call('HGET', KEYS[1], 'version') ~= ARGV[1] then return false end
if #ARGV[2] == 4 then return '' end

local STAGING, WRAP = 8, 4294967296
-- A clock that is this much (ms) behind the newest stamp is a new clock: the log moves to it. If it is less, time stands
-- still for this token until the clock has caught up.
local JUMP = 5000

local call, pack, unpack, spread = redis.call, struct.pack, struct.unpack, unpack
local key = KEYS[2]
local width = (#ARGV[2] - 4) / 8
-- The front of the log and its staging area, with some to spare.
local log = call('GETRANGE', key, '0', width <= 6 and '127' or string.format('%d', 12 * width + 45))
local time = call('TIME')
local micros = time[2] + 0
local clock = time[1] * 1000 + (micros - micros % 1000) / 1000

-- The plan and the front of the log as rows of numbers: {cost, limit, window, limit, window …} and {newest, staged,
-- windows, first, slots, length, count, oldest, length, count, oldest …, newest stamp}.
local ask, shape, answer
if width == 2 then
  ask, shape, answer = {unpack('<I4I4I4I4I4', ARGV[2])}, '<I6BBI3I3I4I4I4I4I4I4I4', '<BI6I4I4I4I4'
else
  local each = string.rep('I4I4', width)
  ask, shape, answer = {unpack('<I4' .. each, ARGV[2])}, '<I6BBI3I3I4' .. string.rep('I4I4I4', width), '<BI6' .. each
end
local cost, longest, last = ask[1], ask[2 * width + 1], 3 * width + 6
local front, fits = {clock, 0, width, 0, 0}, false
if #log >= 12 * width + 18 then
  front = {unpack(shape, log)}
  fits = front[3] == width
  for j = 1, width do
    if front[3 * j + 3] ~= ask[2 * j + 1] then fits = false end
  end
end
-- Bytes before the staging area and before the ring.
local staging = 14 + 12 * width
if not fits then
  -- A new log, or one of a plan with other windows: as far as it knows a window, that stands; the others are told to
  -- look at all there is.
  front = {clock, 0, 0, 0, 0}
  if log ~= '' then front = {unpack('<I6BBI3I3', log)} end
  local known, held, head = {}, 0, clock % WRAP
  staging = 14 + 12 * front[3]
  if log ~= '' then
    log = call('GETRANGE', key, '0', string.format('%d', staging + 31))
    head = unpack('<I4', log, staging + 1)
    for at = 15, staging, 12 do
      local length, count, oldest = unpack('<I4I4I4', log, at)
      known[length], held = {count, oldest}, count
    end
  end
  for j = 1, width do
    local window = ask[2 * j + 1]
    local of = known[window] or {held > 0 and held + 1 or 0, (head - window) % WRAP}
    front[3 * j + 3], front[3 * j + 4], front[3 * j + 5] = window, of[1], of[2]
  end
  front[last] = head
end
local newest, staged, first, slots, head = front[1], front[2], front[4], front[5], front[last]
local behind = staging + 4 * STAGING

local moved = newest - clock > JUMP
if moved then newest = clock end
local now = newest > clock and newest or clock
local elapsed, lead = now - newest, now - clock

-- How much older than the newest stamp the i-th newest is.
local function age(i)
  local at = staging + 4 * (i - 1)
  if i > staged then at = behind + (first + i - staged - 1) % slots * 4 end
  if at + 4 <= #log then return (head - unpack('<I4', log, at + 1)) % WRAP end
  return (head - unpack('<I4', call('GETRANGE', key, string.format('%d', at), string.format('%d', at + 3)))) % WRAP
end

local admitted = true
for j = 1, width do
  local window, count = ask[2 * j + 1], front[3 * j + 4]
  local inside = window - elapsed
  if count > 0 and (head - front[3 * j + 5]) % WRAP >= inside then
    -- The count-th newest stamp has left the window.
    local low, high, step, oldest = 0, count, 1, 0
    if inside > 0 then low = 1 end
    while high - low > 1 and low > 0 do
      local i = high - step
      if step == 0 or i <= low then
        step, i = 0, (low + high - (low + high) % 2) / 2
      end
      local a = age(i)
      if a < inside then
        low, oldest, step = i, a, 0
      else
        high, step = i, step * 2
      end
    end
    count = low
    front[3 * j + 4], front[3 * j + 5] = count, (head - oldest) % WRAP
  end
  if count + cost > ask[2 * j] then admitted = false end
end

if not admitted then
  -- A refusal writes nothing, so it stands until a slot is free. Only a new clock is written down, or else a token that
  -- is refused again and again would have to wait for the old one.
  if moved then call('SETRANGE', key, '0', pack('<I6', newest)) end
  local steady = longest
  for j = 1, width do
    local limit, window, count = ask[2 * j], ask[2 * j + 1], front[3 * j + 4]
    local wait = lead
    if count > 0 then
      wait = window - elapsed - (head - front[3 * j + 5]) % WRAP + lead
      if wait < steady then steady = wait end
    end
    if cost > limit then
      wait = window + lead
    elseif count + cost > limit + 1 then
      wait = window - elapsed - age(limit - cost + 1) + lead
    end
    ask[2 * j], ask[2 * j + 1] = count, wait
  end
  ask[2 * width + 2] = steady
  return pack(answer .. 'I4', 0, clock, spread(ask, 2))
end

local stamp, held = (head + elapsed) % WRAP, 0
for j = 1, width do
  local count, wait = front[3 * j + 4], ask[2 * j + 1] + lead
  if count == 0 then
    front[3 * j + 5] = stamp
  else
    wait = wait - elapsed - (head - front[3 * j + 5]) % WRAP
  end
  held = count + cost
  front[3 * j + 4] = held
  ask[2 * j], ask[2 * j + 1] = held, wait
end
local reply = pack(answer, 1, clock, spread(ask, 2))

-- From here on the log is written. `fresh`: the new stamps that go to the staging area besides the one that belongs to
-- the front; `kept`: those that stay there; `spill`: those that go on to the ring.
local fresh, kept, spill = '', '', ''
local old = log:sub(staging + 1, staging + 4 * staged)
if staged + cost <= STAGING then
  kept = old
  if cost > 1 then fresh = string.rep(pack('<I4', stamp), cost - 1) end
  staged = staged + cost
else
  staged = cost < STAGING and cost or STAGING
  fresh = string.rep(pack('<I4', stamp), staged - 1)
  spill = string.rep(pack('<I4', stamp), cost - staged) .. old
end
-- How many stamps the ring has to hold.
local deep = held > staged and held - staged or 0

-- The log outlives its newest stamp by the longest window. It lives a margin longer than that, so that it need not be
-- told at each admission, but once a margin.
local margin = longest > 240000 and longest / 4 or 60000
front[1], front[2], front[last] = now, staged, stamp

if fits and (spill == '' or deep <= slots and slots <= 4 * (deep + STAGING)) then
  local size = #spill / 4
  if size > deep then size = deep end
  if size > 0 then
    first = (first - size) % slots
    front[4] = first
    local ahead = slots - first
    call('SETRANGE', key, string.format('%d', behind + 4 * first), spill:sub(1, 4 * (size < ahead and size or ahead)))
    if size > ahead then call('SETRANGE', key, string.format('%d', behind), spill:sub(4 * ahead + 1, 4 * size)) end
  end
  call('SETRANGE', key, '0', pack(shape, spread(front)) .. fresh .. kept)
  if now - now % margin ~= newest - newest % margin then
    call('PEXPIRE', key, string.format('%d', longest + margin))
  end
  return reply
end

-- The ring is too small or far too large, or the windows are others: the log is written anew, the ring with room for one
-- more spill and then up to the next size class of the allocator (four to each power of two), of which a string's own
-- header takes up to 10 bytes.
spill = spill:sub(1, 4 * deep)
local ring, more = '', deep - #spill / 4
if more > 0 then
  ring = call('GETRANGE', key, string.format('%d', behind), string.format('%d', behind + 4 * slots - 1))
  ring = (ring:sub(4 * first + 1) .. ring:sub(1, 4 * first)):sub(1, 4 * more)
end
local fixed, empty = 14 + 12 * width + 4 * STAGING, 0
if deep > 0 then
  local size, class = fixed + 4 * (deep + STAGING) + 10, 16
  while 8 * class < size do class = 2 * class end
  size = size + (-size) % class - 10 - fixed
  empty = (size - size % 4) / 4 - deep
end
front[3], front[4], front[5] = width, 0, deep + empty
call('SET', key, table.concat({
  pack(shape, spread(front)), fresh, kept, string.rep('\0', 4 * (STAGING - staged)), spill, ring, string.rep('\0', 4 * empty),
}), 'PX', string.format('%d', longest + margin))
return reply
