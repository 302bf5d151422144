--[[ pause: stop handing out chunks of the job; running chunks go on.
  KEYS[1] job            longshore:{J}
  ARGV[1] events channel ARGV[2] job id
  Output  {"now", state} | {"illegal", state} | {"absent"}
  Flags   allow-oom ]]
local key, channel, id = KEYS[1], ARGV[1], ARGV[2]

local job = jobs.load(key)
if not job then
  return { 'absent' }
end
local before = jobs.state(job)
local after = jobs.next(job, 'pause')
if not after then
  return { 'illegal', before }
end
if after ~= before then
  jobs.set(job, 'paused_from', before)
  jobs.set(job, 'state', after)
  jobs.drop(job, 'eta_ms')
  jobs.save(job)
  hints.changed(channel, id, job)
end
return { 'now', after }
