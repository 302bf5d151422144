--[[ cancel: end the job as cancelled; an unknown job is cancelled when it is admitted.
  KEYS[1] job            longshore:{J}
  KEYS[2] document       longshore:{J}:doc
  KEYS[3] manifest       longshore:{J}:manifest
  KEYS[4] done           longshore:{J}:done
  KEYS[5] failed         longshore:{J}:failed
  KEYS[6] errors         longshore:{J}:errors
  KEYS[7] error order    longshore:{J}:errors:order
  KEYS[8] chunks         longshore:{J}:chunks
  KEYS[9] retry set      longshore:{J}:retry
  KEYS[10] results       longshore:{J}:results
  KEYS[11] recoveries    longshore:{J}:recoveries
  KEYS[12] due           longshore:{J}:due
  KEYS[13] deleted       longshore:{J}:deleted
  KEYS[14] cancel        longshore:{J}:cancel
  ARGV[1] events channel ARGV[2] job id   ARGV[3] remember for, ms
  Output  {"now", state} | {"illegal", state} | {"remembered"} | {"absent"}
  Flags   allow-oom ]]
local keys = lifecycle.keys(KEYS)
local deleted, cancel = KEYS[13], KEYS[14]
local channel, id, remember_for = ARGV[1], ARGV[2], ARGV[3]

local job = jobs.load(keys.job)
if not job and redis.call('EXISTS', deleted) == 1 then
  return { 'absent' }
end
if not job then
  redis.call('SET', cancel, jobs.now(), 'PX', remember_for)
  return { 'remembered' }
end
local before = jobs.state(job)
local after = jobs.next(job, 'cancel')
if not after then
  return { 'illegal', before }
end
if after ~= before then
  lifecycle.finish(job, keys, jobs.now(), 'cancel')
  hints.changed(channel, id, job)
end
return { 'now', after }
