--[[ cancel: end the job as cancelled.
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
  ARGV[1] events channel ARGV[2] job id
  Output  {"now", state} | {"illegal", state} | {"absent"}
  Flags   allow-oom ]]
local keys = settle.keys(KEYS)
local channel, id = ARGV[1], ARGV[2]

local it = job.load(keys.job)
if not it then
  return { 'absent' }
end
local before = job.state(it)
local after = job.next(it, 'cancel')
if not after then
  return { 'illegal', before }
end
if after ~= before then
  settle.finish(it, keys, job.now(), 'cancel')
  hints.changed(channel, id, it)
end
return { 'now', after }
