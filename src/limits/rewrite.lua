-- The end of decide.lua if the ring is too small or far too large, or if the windows are others: the log is written anew. It is
-- a file of its own because ring.lua is in front of it: most admissions end earlier, and don't pay for that function.

spill = spill:sub(1, 4 * deep)
local ring, tail, more = '', '', deep - #spill / 4
if more > 0 then
  ring = call('GETRANGE', key, string.format('%d', ring_at), string.format('%d', ring_at + 4 * slots + 3))
  tail = ring:sub(4 * slots + 1)
  ring = (ring:sub(4 * first + 1, 4 * slots) .. ring:sub(1, 4 * first)):sub(1, 4 * more)
elseif fits and slots == 0 then
  tail = log:sub(ring_at + 1)
elseif fits then
  tail = call('GETRANGE', key, string.format('%d', ring_at + 4 * slots), '-1')
end
-- If it doesn't fit, that has been read already, or counts no more.
if fits and #tail == 4 then most = unpack('<I', tail) end
for j = 1, width do
  if ask[2 * j] > most then most = ask[2 * j] end
end
slots = ring_slots(width, deep)
row[1], row[2], row[3] = width, 0, slots
local value = {pack(all, spread(row)), fresh, kept, string.rep('\0', 4 * (STAGING - staged)), spill, ring,
  string.rep('\0', 4 * (slots - deep)), pack('<I', most)}
call('SET', key, table.concat(value), 'PX', string.format('%d', longest + margin))
return answer
