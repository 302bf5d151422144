--[[ pause: stop feeding the job; what runs goes on.
  KEYS[1] job            longshore:{J}
  ARGV[1] events channel ARGV[2] job id
  Output  {"now", state} | {"illegal", state} | {"absent"}
  Flags   allow-oom ]]
local key, channel, id = KEYS[1], ARGV[1], ARGV[2]

local it = job.load(key)
if not it then
  return { 'absent' }
end
local before = job.state(it)
local after = job.next(it, 'pause')
if not after then
  return { 'illegal', before }
end
if after ~= before then
  job.set(it, 'paused_from', before)
  job.set(it, 'state', after)
  job.drop(it, 'eta_ms')
  job.save(it)
  hints.changed(channel, id, it)
end
return { 'now', after }
