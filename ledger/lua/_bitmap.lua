--[[ _bitmap: reads and writes ranges [from, to) of a bitmap, each in O(1) commands.
  Ten thousand SETBITs would stall the server for milliseconds; a SETRANGE of whole bytes with a
  BITFIELD at either edge takes microseconds. ]]

local bitmap = {}

-- Literals: while a library is loaded, Redis offers no `string`.
local FULL, EMPTY = '\255', '\0'

-- The number of set bits.
function bitmap.count(key, from, to)
  if from >= to then
    return 0
  end
  return redis.call('BITCOUNT', key, from, to - 1, 'BIT')
end

-- The first set bit, or nil.
function bitmap.next_set(key, from, to)
  if from >= to then
    return nil
  end
  local found = redis.call('BITPOS', key, 1, from, to - 1, 'BIT')
  return found >= 0 and found or nil
end

-- The first clear bit, or nil. Bits past the end of the string are clear, which BITPOS with a range
-- does not report.
function bitmap.next_clear(key, from, to)
  if from >= to then
    return nil
  end
  local length = redis.call('STRLEN', key) * 8
  if from >= length then
    return from
  end
  local found = redis.call('BITPOS', key, 0, from, math.min(to, length) - 1, 'BIT')
  if found >= 0 then
    return found
  end
  return length < to and length or nil
end

-- Writes fewer than 16 bits: the rest of a range beside its whole bytes.
local function write_edge(key, from, to, bit)
  local width = to - from
  if width > 0 then
    redis.call('BITFIELD', key, 'SET', 'u' .. width, from, bit == 1 and 2 ^ width - 1 or 0)
  end
end

-- Sets (bit 1) or clears (bit 0) the range.
function bitmap.write(key, from, to, bit)
  local first, last = math.ceil(from / 8), math.floor(to / 8)
  if first >= last then
    return write_edge(key, from, to, bit)
  end
  write_edge(key, from, first * 8, bit)
  redis.call('SETRANGE', key, first, string.rep(bit == 1 and FULL or EMPTY, last - first))
  write_edge(key, last * 8, to, bit)
end
