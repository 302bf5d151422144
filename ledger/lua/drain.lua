--[[ drain: ask a worker to drain; the answer to its next heartbeat tells it.
  KEYS[1] node           longshore:node:N
  Output  {"asked"} | {"absent"} ]]
local key = KEYS[1]

if redis.call('EXISTS', key) == 0 then
  return { 'absent' }
end
redis.call('HSET', key, 'drain', 'asked')
return { 'asked' }
