--[[ record_crash: record how the process of a worker ended.
  KEYS[1] node           longshore:node:N
  ARGV[1] how it ended
  Output  {"recorded"} | {"absent"}
  Flags   allow-oom ]]
local key, death = KEYS[1], ARGV[1]

if redis.call('EXISTS', key) == 0 then
  return { 'absent' }
end
redis.call('HSET', key, 'death', death)
return { 'recorded' }
