-- One decision: may this token have `cost` more requests now? Compares the token's version, tests every window of its
-- plan exactly against one log of admissions and, if all have room, adds to it. Atomic, as every script is.
--
-- KEYS[1]  the token's record, a hash with the field `version`
-- KEYS[2]  the token's log, the string described below
-- KEYS[3]  only if the request opens a call: the leases of the token's open calls, see calls.lua
-- ARGV[1]  the version that the caller knows; false if it has been compared
-- ARGV[2]  the plan: cost, then limit and window (ms) of each of its limits, shortest window first; 4 bytes each. A cost
--          of 0 only looks: it is answered as a denial of cost 1 would be, whether there is room or not. With 2^31 added
--          to it, a cost is only tried: it is denied, whether there is room or not
-- ARGV[3]  with KEYS[3]: how many calls the token may have open
-- ARGV[4]  with KEYS[3]: the name of the new call's lease
-- ARGV[5]  with KEYS[3]: leases that ended at most so long ago (ms) count as well: their instances may not have renewed
--          them yet after an outage
-- ARGV.time  what TIME answered, if that has been asked already
--
-- Answers nil if the version is another one or the record is gone, with nothing counted; '' if the plan has no limits;
-- otherwise a string. If admitted: the front of the log as it is now (below), followed by 6 bytes this server's clock
-- (Unix ms) if that is behind it. If denied: a 0 byte, 6 bytes this server's clock, and per limit 4 bytes requests in its
-- window and 4 bytes ms until the window frees a slot; behind that, if the cost is above 1, per limit 4 bytes ms until its
-- oldest request leaves. If only the open calls are too many: the same with a first byte of
-- 255, or this byte alone if the plan has no limits.
--
-- The log costs 4 bytes per admission: its stamp in ms modulo 2^32. Only ages relative to the newest stamp are ever
-- computed, so neither the wrap after 49 days nor a change of the clock matters. All integers are unsigned and
-- little-endian; windows are in the order of the plan.
--
--   shape    1  how many windows
--            3  first: the slot of the ring with its newest stamp
--            3  slots: the size of the ring
--            4  length (ms) of each window
--   front    1  staged: stamps in the staging area, never 0
--            6  newest: the clock's reading at the newest stamp (Unix ms)
--            4  count   } of each window, as of the newest stamp: what lies inside, and the oldest stamp that does.
--            4  oldest  } What the longest window does not count is forgotten, and what lies there may be garbage
--   staging  8 stamps of 4 bytes, newest first; of the front of the log, the newest belongs to it
--   ring     stamps, newest first from slot `first` on, round the end; the next goes to the slot before `first`
--   end      4  most: the largest limit of the plans that used the log; none in a log of an older Callgate
--
-- Instances may know different plans of one token. A log goes on being kept for the longest window that any of them asked for,
-- until none has for as long as that window is. While the plan at hand needs less, two windows more precede its own. The first
-- has the length 0, which no plan's has; its count is `most`, and its `oldest` the stamp up to which the longer window is known
-- to have been in use: one more than the newest stamp if it was asked for since. The second is that longer window. It holds the
-- newest `most` admissions at most, all that a limit can ask for.
--
-- Most admissions write the front and the staging area and nothing else. Counts are exact without counting: while a
-- window's oldest stamp is inside, nothing has left it. When it is outside, a few steps from the old end, then bisection,
-- find the new oldest.
--
-- What shapes the code is the price of things, in thousand instructions: any redis.call 8 to 12 and 4 per KB read, a
-- number as its argument 2, struct.pack or unpack 1 and 0.3 per field, a new string 0.6, a table 0.5, a closure 0.4 per
-- variable that it captures.

local call, pack, unpack, spread = redis.call, struct.pack, struct.unpack, unpack
if ARGV[1] and call('HGET', KEYS[1], 'version') ~= ARGV[1] then return false end
if #ARGV[2] == 4 and not KEYS[3] then return '' end

local TRIED = 2147483648
local time = ARGV.time or call('TIME')
local micros = time[2] + 0
local clock = time[1] * 1000 + (micros - micros % 1000) / 1000

-- Takes a lease if there is one left. Leases that end later than a new one, and some seconds, are of a clock that was ahead,
-- and don't count until they are renewed.
local lease
if KEYS[3] then
  lease = function()
    local LEASE, MAX_LEASE, KEPT = 30000, 35000, 3600000
    local calls, since = KEYS[3], string.format('(%d', clock - ARGV[5])
    local open = redis.call('ZCOUNT', calls, since, string.format('%d', clock + MAX_LEASE))
    if open >= tonumber(ARGV[3]) then return false end
    redis.call('ZREMRANGEBYSCORE', calls, '-inf', string.format('%d', clock - KEPT))
    redis.call('ZADD', calls, string.format('%d', clock + LEASE), ARGV[4])
    redis.call('PEXPIRE', calls, string.format('%d', KEPT))
    return true
  end
  if #ARGV[2] == 4 then return lease() and '' or '\255' end
end

local key, width = KEYS[2], (#ARGV[2] - 4) / 8
-- The plan as a row of numbers, {cost, limit, window, limit, window …}, and how to read and write shape and front.
local ask, all, front, front_at, upto
if width == 2 then
  ask = {unpack('<IIIII', ARGV[2])}
  all, front, front_at, upto = '<BI3I3IIBI6IIIII', '<BI6IIIII', '15', '73'
else
  local ones = string.rep('I', width)
  ask = {unpack('<I' .. ones .. ones, ARGV[2])}
  all, front = '<BI3I3' .. ones .. 'BI6' .. ones .. ones .. 'I', '<BI6' .. ones .. ones .. 'I'
  front_at = string.format('%d', LENGTHS + 4 * width)
  upto = string.format('%d', HEADER + WINDOW * width + STAGING_BYTES + 3)
end
local cost, longest = ask[1], ask[2 * width + 1]
local looks, tried = cost == 0, cost >= TRIED
if looks then cost = 1 elseif tried then cost = cost - TRIED end

-- Shape, front, staging area and the next 4 bytes; the former two also as a row of numbers, in which F + 1 is staged, F + 2 newest, F + 1 +
-- 2j and F + 2 + 2j count and oldest of the j-th window, and LAST the newest stamp.
local log = call('GETRANGE', key, '0', upto)
local F, LAST = 3 + width, 6 + 3 * width
local row, fits
if #log >= HEADER + WINDOW * width + 4 then
  row = {unpack(all, log)}
  fits = row[1] == width
  for j = 1, width do
    if row[3 + j] ~= ask[2 * j + 1] then fits = false end
  end
end
-- Bytes before the staging area.
local staging = HEADER + WINDOW * width
-- If the log is kept for a longer window: how many windows precede the plan's, and the first of them that is counted. And
-- then `most`, the stamp up to which that window was in use (nil: it is now), and where to write that it is.
local extra, from, most, seen, in_use_at = 0, 1, 0
if not fits then
  -- A new log, or one of a plan with other windows: what it counts of a window stays, and for the
  -- others all of it is searched.
  if log == '' then
    row = {width, 0, 0}
    for j = 1, width do row[3 + j] = ask[2 * j + 1] end
    row[F + 1], row[F + 2], row[LAST] = 0, clock, clock % WRAP
    for j = 1, width do row[F + 1 + 2 * j], row[F + 2 + 2 * j] = 0, 0 end
  else
    local stored, first, slots = unpack('<BI3I3', log)
    staging = HEADER + WINDOW * stored
    log = call('GETRANGE', key, '0', string.format('%d', staging + STAGING_BYTES + 3))
    -- Where the front begins, and in it the counts; a string begins at 1.
    local front_from = LENGTHS + 4 * stored + 1
    local counts_from = front_from + HEADER - LENGTHS
    local staged, newest = unpack('<BI6', log, front_from)
    local head, elapsed = unpack('<I', log, staging + 1), clock > newest and clock - newest or 0
    local lengths, known = {unpack('<' .. string.rep('I', stored), log, LENGTHS + 1)}, {}
    for i = 1, stored do known[lengths[i]] = {unpack('<II', log, counts_from + 8 * (i - 1))} end
    -- The window that the log is kept for: the longest of the plan that wrote it last, which may have been denied since, or else
    -- a longer one.
    local last, held = lengths[stored]
    local span = last
    if lengths[1] == 0 then
      span, most, seen = lengths[2], known[0][1], known[0][2]
      held = known[span][1]
      if span <= longest then in_use_at = string.format('%d', counts_from + 3) end
      local unused = (head - seen) % WRAP
      if unused == WRAP - 1 then
        seen = nil
      elseif unused + elapsed >= span then
        span, seen = last, nil
        if last <= longest then most = 0 end
      end
    else
      held = known[last][1]
      local at = staging + STAGING_BYTES + 4 * slots
      local tail = call('GETRANGE', key, string.format('%d', at), string.format('%d', at + 3))
      most = #tail == 4 and unpack('<I', tail) or held
    end
    if span > longest then
      for j = 1, width do
        if ask[2 * j] > most then most = ask[2 * j] end
      end
      extra, from, longest, width = 2, 2, span, width + 2
      ask = {cost, 0, 0, most, span, spread(ask, 2)}
      F, LAST = 3 + width, 6 + 3 * width
      local ones = string.rep('I', width)
      all, front = '<BI3I3' .. ones .. 'BI6' .. ones .. ones .. 'I', '<BI6' .. ones .. ones .. 'I'
      front_at = string.format('%d', LENGTHS + 4 * width)
    end
    row = {width, first, slots}
    fits = stored == width
    for j = 1, width do
      local length = ask[2 * j + 1]
      row[3 + j] = length
      if length ~= lengths[j] then fits = false end
      local of = known[length] or {held + 1, (head - length) % WRAP}
      row[F + 1 + 2 * j], row[F + 2 + 2 * j] = of[1], of[2]
    end
    row[F + 1], row[F + 2], row[LAST] = staged, newest, head
  end
end
local staged, newest, head, ring_at = row[F + 1], row[F + 2], row[LAST], staging + STAGING_BYTES

local moved = newest - clock > JUMP
if moved then newest = clock end
local now = newest > clock and newest or clock
local elapsed, lead = now - newest, now - clock

local admitted = not (looks or tried)
-- Of windows that hold more than they admit by now: the stamp that has to leave. Of the longer window that the log is kept
-- for, if it holds the most that it may: the oldest stamp to be kept, or false if there is none yet.
local blocker
for j = from, width do
  local limit, count, oldest = ask[2 * j], row[F + 1 + 2 * j], row[F + 2 + 2 * j]
  local inside = ask[2 * j + 1] - elapsed
  local left = count > 0 and (head - oldest) % WRAP >= inside
  if left or count + cost > limit then
    -- The log itself must be searched. (All that this function needs is an argument: capturing costs more.)
    local function stamp_of(i, log, key, staging, ring, staged, first, slots)
      local at = staging + 4 * (i - 1)
      if i > staged then at = ring + (first + i - staged - 1) % slots * 4 end
      if at + 4 <= #log then return (struct.unpack('<I', log, at + 1)) end
      return (struct.unpack('<I', redis.call('GETRANGE', key, string.format('%d', at), string.format('%d', at + 3))))
    end
    if left then
      -- The count-th newest stamp has left; the newest has not, unless all have.
      local low, high, step = 1, count, 1
      if inside <= 0 then low, high = 0, 1 end
      oldest = head
      while high - low > 1 do
        local i = high - step
        if step == 0 or i <= low then
          step, i = 0, (low + high - (low + high) % 2) / 2
        end
        local stamp = stamp_of(i, log, key, staging, ring_at, staged, row[2], row[3])
        if (head - stamp) % WRAP < inside then
          low, oldest, step = i, stamp, 0
        else
          high, step = i, step * 2
        end
      end
      count = low
      row[F + 1 + 2 * j], row[F + 2 + 2 * j] = count, oldest
    end
    if j == extra then
      if count + cost > limit then
        blocker = {[j] = limit > cost and stamp_of(limit - cost, log, key, staging, ring_at, staged, row[2], row[3])}
      end
    elseif count + cost > limit then
      admitted = false
      if count + cost > limit + 1 and cost <= limit then
        blocker = blocker or {}
        blocker[j] = stamp_of(limit - cost + 1, log, key, staging, ring_at, staged, row[2], row[3])
      end
    end
  end
end

local verdict = 0
if lease and admitted and not lease() then admitted, verdict = false, 255 end
if not admitted then
  -- A denial writes nothing, so it holds until a slot is free. Only a new clock is written, or else a token that is
  -- denied again and again would have to wait for the old one; and that a longer window is in use, if that is not known.
  if moved and not looks then
    call('SETRANGE', key, string.format('%d', LENGTHS + 4 * (staging - HEADER) / WINDOW + 1), pack('<I6', newest))
  end
  if in_use_at and not looks then call('SETRANGE', key, in_use_at, pack('<I', (head + 1) % WRAP)) end
  for j = extra + 1, width do
    local limit, window, count = ask[2 * j], ask[2 * j + 1], row[F + 1 + 2 * j]
    local wait = lead
    if count > 0 then
      wait = window - elapsed - (head - row[F + 2 + 2 * j]) % WRAP + lead
    end
    if cost > 1 then ask[2 * width + 1 + j - extra] = wait end
    if cost > limit then
      wait = window + lead
    elseif blocker and blocker[j] then
      wait = window - elapsed - (head - blocker[j]) % WRAP + lead
    end
    ask[2 * j], ask[2 * j + 1] = count, wait
  end
  local numbers = (cost > 1 and 3 or 2) * (width - extra)
  return pack(numbers == 4 and '<BI6IIII' or '<BI6' .. string.rep('I', numbers), verdict, clock,
    spread(ask, 2 + 2 * extra))
end

local stamp = (head + elapsed) % WRAP
for j = F + 3 + extra, LAST - 2, 2 do
  if row[j] == 0 then row[j + 1] = stamp end
  row[j] = row[j] + cost
end
local held = row[LAST - 2]
if extra > 0 then
  row[F + 3], row[F + 4] = most, seen or stamp
  if blocker then row[F + 5], row[F + 6] = most, blocker[2] or stamp end
  held = row[F + 5]
end

-- The staging area takes the new stamps, the newest of which belongs to the front; if they don't fit, all that it holds
-- spills over to the ring.
local fresh, kept, spill = '', log:sub(staging + 1, staging + 4 * staged), ''
if staged + cost <= STAGING then
  if cost > 1 then fresh = string.rep(pack('<I', stamp), cost - 1) end
  staged = staged + cost
else
  staged = cost < STAGING and cost or STAGING
  fresh, kept, spill = string.rep(pack('<I', stamp), staged - 1), '', string.rep(pack('<I', stamp), cost - staged) .. kept
end
row[F + 1], row[F + 2], row[LAST] = staged, now, stamp
local written = pack(front, spread(row, F + 1))
local reply = written
-- The caller knows of no other windows than its own.
if extra > 0 then reply = written:sub(1, HEADER - LENGTHS) .. written:sub(HEADER - LENGTHS + 8 * extra + 1) end
local answer = lead > 0 and reply .. pack('<I6', clock) or reply

-- How many stamps the ring has to hold: what is remembered and not staged.
local deep, first, slots = held > staged and held - staged or 0, row[2], row[3]
-- The log has to outlive its newest stamp by the longest window. Its expiry is a margin later than that, so that it need
-- not be set at each admission, but once a margin.
local margin = longest > 240000 and longest / 4 or 60000
local due = now - now % margin ~= newest - newest % margin

if fits and (spill == '' or deep <= slots and slots <= 4 * (deep + STAGING)) then
  local size = #spill / 4
  if size > deep then size = deep end
  if size > 0 then
    first = (first - size) % slots
    local ahead = slots - first
    call('SETRANGE', key, string.format('%d', ring_at + 4 * first), spill:sub(1, 4 * (size < ahead and size or ahead)))
    if size > ahead then
      call('SETRANGE', key, string.format('%d', ring_at), spill:sub(4 * ahead + 1, 4 * size))
    end
    row[2] = first
    call('SETRANGE', key, '0', pack(all, spread(row)) .. fresh .. kept)
  else
    call('SETRANGE', key, front_at, written .. fresh .. kept)
  end
  if due then
    call('PEXPIRE', key, string.format('%d', longest + margin))
    -- A limit may have been raised since the log was written.
    local largest, end_at = 0, string.format('%d', ring_at + 4 * slots)
    for j = 1, width do
      if ask[2 * j] > largest then largest = ask[2 * j] end
    end
    local tail = call('GETRANGE', key, end_at, '-1')
    if #tail < 4 or unpack('<I', tail) < largest then call('SETRANGE', key, end_at, pack('<I', largest)) end
  end
  return answer
end
-- rewrite.lua follows.

