--[[ advance_journal: move the ledger's journal position if it is where the caller expects it.
  It is the position up to which the ledger reflects the journal.
  KEYS[1] position       longshore:journal
  ARGV[1] expected offset   ARGV[2] expected record   (empty: no position is kept)
  ARGV[3] new offset        ARGV[4] new record
  Output  {offset, record} as kept now, or {} ]]
local key = KEYS[1]
local expected_offset, expected_record, offset, record = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local now = redis.call('HMGET', key, 'offset', 'record')
if (now[1] or '') == expected_offset and (now[2] or '') == expected_record then
  redis.call('HSET', key, 'offset', offset, 'record', record)
  return { offset, record }
end
if not now[1] then
  return {}
end
return now
