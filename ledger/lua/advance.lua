--[[ advance: move the place up to which the ledger reflects the journal, if it is where the caller
  believes it to be.
  KEYS[1] place          longshore:journal
  ARGV[1] believed offset   ARGV[2] believed record   (empty: there is none)
  ARGV[3] offset            ARGV[4] record
  Output  {offset, record} as it is now, or {} ]]
local key = KEYS[1]

local now = redis.call('HMGET', key, 'offset', 'record')
if (now[1] or '') == ARGV[1] and (now[2] or '') == ARGV[2] then
  redis.call('HSET', key, 'offset', ARGV[3], 'record', ARGV[4])
  return { ARGV[3], ARGV[4] }
end
if not now[1] then
  return {}
end
return now
