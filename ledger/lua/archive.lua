--[[ archive: an ended job goes from the list of active jobs to that of finished ones; one that is gone leaves all lists. In a
  cluster, where the lists lie elsewhere than the job, this is done command by command.
  KEYS[1] job            longshore:{J}
  KEYS[2] active         longshore:jobs:active
  KEYS[3] finished       longshore:jobs:finished
  KEYS[4] expiring       longshore:jobs:expiring
  ARGV[1] job id         ARGV[2] most names
  Output  {name, …}: jobs that need not be kept any longer, the oldest first ]]
local key, active, finished, expiring = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, most = ARGV[1], tonumber(ARGV[2])

local state, ended_at, keep_for =
  unpack(redis.call('HMGET', key, 'state', 'finished_at', 'keep_for_ms'))
if not state then
  redis.call('ZREM', active, id)
  redis.call('ZREM', finished, id)
  redis.call('ZREM', expiring, id)
elseif ENDED[state] then
  redis.call('ZADD', finished, ended_at, id)
  -- A rejected job has no time of its own; its place on the list was made when it was rejected.
  if keep_for then
    redis.call('ZADD', expiring, ended_at + keep_for, id)
  end
  redis.call('ZREM', active, id)
end
return redis.call('ZRANGEBYSCORE', expiring, '-inf', job.now(), 'LIMIT', 0, most)
