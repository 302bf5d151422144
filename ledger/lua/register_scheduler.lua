--[[ register_scheduler: record a scheduler's heartbeat.
  KEYS[1] schedulers     longshore:schedulers
  ARGV[1] scheduler      ARGV[2] within, ms
  Output  {scheduler, …}: those whose last heartbeat is at most that old ]]
local key, scheduler, within = KEYS[1], ARGV[1], tonumber(ARGV[2])
-- A scheduler that was silent for this long does not come back under its name.
local FORGET_MS = 3600000

local now = jobs.now()
redis.call('ZADD', key, now, scheduler)
redis.call('ZREMRANGEBYSCORE', key, '-inf', '(' .. now - math.max(within, FORGET_MS))
return redis.call('ZRANGEBYSCORE', key, now - within, '+inf')
