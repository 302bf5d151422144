--[[ reject: show a job that could not be accepted, with the reason, for a day.
  KEYS[1] job            longshore:{J}
  ARGV[1] events channel ARGV[2] job id   ARGV[3] error
  Output  {"rejected", now} | {"known"} ]]
local key = KEYS[1]
local channel, id, reason = ARGV[1], ARGV[2], ARGV[3]
local DAY_MS = 86400000

if redis.call('EXISTS', key) == 1 then
  return { 'known' }
end
local now = job.now()
local it = job.of(key, {})
job.set(it, 'state', 'rejected')
job.set(it, 'error', reason)
job.set(it, 'submitted_at', now)
job.set(it, 'finished_at', now)
job.save(it)
redis.call('PEXPIRE', key, DAY_MS)
hints.rejected(channel, id, it)
return { 'rejected', now }
