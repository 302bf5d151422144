--[[ isolate: say for which tasks a worker is out of rotation.
  KEYS[1] node           longshore:node:N
  ARGV[1] JSON, a list
  Output  {"noted"} | {"absent"} ]]
local key = KEYS[1]

if redis.call('EXISTS', key) == 0 then
  return { 'absent' }
end
redis.call('HSET', key, 'isolated', ARGV[1])
return { 'noted' }
