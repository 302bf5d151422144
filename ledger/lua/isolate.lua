--[[ isolate: set the tasks for which a worker is out of rotation.
  KEYS[1] node           longshore:node:N
  ARGV[1] the tasks with their evidence: a JSON list
  Output  {"recorded"} | {"absent"} ]]
local key, isolated = KEYS[1], ARGV[1]

if redis.call('EXISTS', key) == 0 then
  return { 'absent' }
end
redis.call('HSET', key, 'isolated', isolated)
return { 'recorded' }
