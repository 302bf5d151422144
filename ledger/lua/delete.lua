--[[ delete: forget an ended job.
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
  Output  {"deleted"} | {"not_ended", state} | {"absent"}
  Flags   allow-oom ]]
local deleted = KEYS[13]
-- Long enough for every scheduler to learn that the job was deleted and is not missing.
local REMEMBER_MS = 3600000

local job = jobs.load(KEYS[1])
if not job then
  return { 'absent' }
end
if not jobs.has_ended(job) then
  return { 'not_ended', jobs.state(job) }
end
redis.call('UNLINK', unpack(KEYS))
redis.call('SET', deleted, jobs.now(), 'PX', REMEMBER_MS)
return { 'deleted' }
