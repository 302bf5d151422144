--[[ admit: take a job in, all its subtasks waiting.
  KEYS[1] job            longshore:{J}
  KEYS[2] document       longshore:{J}:doc
  KEYS[3] manifest       longshore:{J}:manifest
  KEYS[4] deleted        longshore:{J}:deleted
  KEYS[5] active         longshore:jobs:active; these are not given in a cluster, where they lie elsewhere
  KEYS[6] finished       longshore:jobs:finished
  KEYS[7] expiring       longshore:jobs:expiring
  ARGV[1] events channel ARGV[2] job id
  ARGV[3] digest         ARGV[4] document        ARGV[5] manifest (empty: none)
  ARGV[6] total          ARGV[7] task            ARGV[8] queue
  ARGV[9] tenant         ARGV[10] priority       ARGV[11] keep_for, ms
  ARGV[12] fan_in        ARGV[13] reduce nodes   (12 to 16 are empty where they don't apply)
  ARGV[14] max_parallel  ARGV[15] stop_after_failures   ARGV[16] deadline, ms from now
  Output  {"accepted", now} | {"known"} | {"conflict"} ]]
local keys = admission.keys(KEYS)
local channel, id, digest = ARGV[1], ARGV[2], ARGV[3]

local misuse = admission.misuse(ARGV)
if misuse then
  return misuse
end
local known = job.load(keys.job)
if known and job.state(known) ~= 'rejected' then
  return { known.fields.digest == digest and 'known' or 'conflict' }
end

local now = job.now()
local it = admission.fresh(keys.job, ARGV, now)
admission.save(it, keys, ARGV)
local active, finished, expiring = KEYS[5], KEYS[6], KEYS[7]
if active then
  redis.call('ZADD', active, now, id)
  redis.call('ZREM', finished, id)
  redis.call('ZREM', expiring, id)
end
job.announce(channel, id, it)
return { 'accepted', now }
