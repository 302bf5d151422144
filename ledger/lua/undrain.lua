--[[ undrain: withdraw a drain; the answer to the worker's next heartbeat tells it.
  KEYS[1] node           longshore:node:N
  Output  {"withdrawn"} | {"absent"} ]]
local key = KEYS[1]

if redis.call('EXISTS', key) == 0 then
  return { 'absent' }
end
redis.call('HDEL', key, 'drain')
return { 'withdrawn' }
