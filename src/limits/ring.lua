-- How many slots a new ring gets that has to hold `deep` stamps, in a log of `width` windows: it has room for one more spill of
-- the staging area, and then up to the next size class of the allocator (four to each power of two), of which a string's own
-- header takes up to 6 bytes, or 10 from 64 KB on, and what is behind the ring 4. layout.lua is in front of this.
local function ring_slots(width, deep)
  if deep == 0 then return 0 end
  local fixed, class = HEADER + WINDOW * width + STAGING_BYTES + (deep < 16000 and 10 or 14), 16
  local size = fixed + 4 * (deep + STAGING)
  while 8 * class < size do class = 2 * class end
  size = size + (-size) % class - fixed
  return (size - size % 4) / 4
end

