--[[ archive: move an ended job to the list of finished jobs, and take an absent job off all lists.
  In a cluster, where the lists lie in another slot than the job, the caller sends the commands one
  by one instead.
  KEYS[1] job            longshore:{J}
  KEYS[2] active         longshore:jobs:active
  KEYS[3] finished       longshore:jobs:finished
  KEYS[4] expiring       longshore:jobs:expiring
  ARGV[1] job id         ARGV[2] most names
  Output  {name, …}: jobs whose time to be kept has passed, the oldest first ]]
local key, active, finished, expiring = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, most = ARGV[1], tonumber(ARGV[2])

local state, ended_at, keep_for =
  unpack(redis.call('HMGET', key, 'state', 'finished_at', 'keep_for_ms'))
if not state then
  redis.call('ZREM', active, id)
  redis.call('ZREM', finished, id)
  redis.call('ZREM', expiring, id)
elseif TERMINAL[state] then
  redis.call('ZADD', finished, ended_at, id)
  -- A rejected job has no `keep_for_ms`; it was put on the list when it was rejected.
  if keep_for then
    redis.call('ZADD', expiring, ended_at + keep_for, id)
  end
  redis.call('ZREM', active, id)
end
return redis.call('ZRANGEBYSCORE', expiring, '-inf', jobs.now(), 'LIMIT', 0, most)
