--[[ reject: keep a job that could not be accepted, with the reason, for a day.
  KEYS[1] job            longshore:{J}
  ARGV[1] events channel ARGV[2] job id   ARGV[3] error
  Output  {"rejected", now} | {"known"} ]]
local key = KEYS[1]
local channel, id, reason = ARGV[1], ARGV[2], ARGV[3]
local DAY_MS = 86400000

if redis.call('EXISTS', key) == 1 then
  return { 'known' }
end
local now = jobs.now()
local job = jobs.of(key, {})
jobs.set(job, 'state', REJECTED_STATE)
jobs.set(job, 'error', reason)
jobs.set(job, 'submitted_at', now)
jobs.set(job, 'finished_at', now)
jobs.save(job)
redis.call('PEXPIRE', key, DAY_MS)
hints.rejected(channel, id, job)
return { 'rejected', now }
