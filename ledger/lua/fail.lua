--[[ fail: end the job as failed, for a reason other than its subtasks (its deadline passed).
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
  ARGV[1] events channel ARGV[2] job id   ARGV[3] error
  Output  {"now", state} | {"illegal", state} | {"absent"}
  Flags   allow-oom ]]
local keys = lifecycle.keys(KEYS)
local channel, id, failure = ARGV[1], ARGV[2], ARGV[3]

local job = jobs.load(keys.job)
if not job then
  return { 'absent' }
end
local before = jobs.state(job)
local after = jobs.next(job, 'fail')
if not after then
  return { 'illegal', before }
end
if after ~= before then
  lifecycle.finish(job, keys, jobs.now(), 'fail', failure)
  hints.changed(channel, id, job)
end
return { 'now', after }
