--[[ record_action: add an entry to the audit trail, once, and drop the oldest ones.
  KEYS[1] actions        longshore:api:actions
  ARGV[1] the entry: JSON that begins with its id
  ARGV[2] the number of entries that are kept
  Output  {"recorded"} ]]
local key, entry, kept = KEYS[1], ARGV[1], tonumber(ARGV[2])

redis.call('ZADD', key, 'NX', jobs.now(), entry)
redis.call('ZREMRANGEBYRANK', key, 0, -kept - 1)
return { 'recorded' }
