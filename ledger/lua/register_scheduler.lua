--[[ register_scheduler: a scheduler's sign of life.
  KEYS[1] schedulers     longshore:schedulers
  ARGV[1] scheduler      ARGV[2] within, ms
  Output  {scheduler, …}: all that beat within that time ]]
local key, scheduler, within = KEYS[1], ARGV[1], tonumber(ARGV[2])
-- Whoever was silent for this long is not coming back under that name.
local FORGET_MS = 3600000

local now = job.now()
redis.call('ZADD', key, now, scheduler)
redis.call('ZREMRANGEBYSCORE', key, '-inf', '(' .. now - math.max(within, FORGET_MS))
return redis.call('ZRANGEBYSCORE', key, now - within, '+inf')
