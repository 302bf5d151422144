--[[ restore: put back a job that the ledger lost, as the journal tells of it.
  KEYS[1] job            longshore:{J}
  KEYS[2] document       longshore:{J}:doc
  KEYS[3] manifest       longshore:{J}:manifest
  KEYS[4] deleted        longshore:{J}:deleted
  KEYS[5] cancel         longshore:{J}:cancel
  ARGV[1…16] as of `admit`, but the deadline counts from the submission
  ARGV[17] state         queued, paused, succeeded, failed or cancelled
  ARGV[18] submitted, ms
  The rest only of a job that has ended, empty where it does not apply:
  ARGV[19] finished, ms  ARGV[20] started, ms    ARGV[21] done   ARGV[22] failed
  ARGV[23] cancelled     ARGV[24] reduce done    ARGV[25] reduce failed
  ARGV[26] reduce cancelled   ARGV[27] generation   ARGV[28] attempts
  ARGV[29] busy, ms      ARGV[30] lost           ARGV[31] error
  Output  {"restored"} | {"known"} | {"expired"} ]]
local keys = admission.keys(KEYS)
local channel, id, state, submitted = ARGV[1], ARGV[2], ARGV[17], tonumber(ARGV[18])

local misuse = admission.misuse(ARGV)
if misuse then
  return misuse
end
local function number(i)
  return tonumber(ARGV[i]) or 0
end
local ended, now = ENDED[state], job.now()
if ended and (number(21) + number(22) + number(23) ~= number(6)
  or number(24) + number(25) + number(26) ~= number(13)) then
  return redis.error_reply('MISUSE the numbers of an ended job do not add up to its total')
end
local known = job.load(keys.job)
if known and job.state(known) ~= 'rejected' or redis.call('EXISTS', keys.deleted) == 1 then
  return { 'known' }
end
local left = ended and number(19) + number(11) - now
if left and left <= 0 then
  return { 'expired' }
end

local it = admission.fresh(keys.job, ARGV, submitted)
job.set(it, 'state', state)
if state == 'paused' then
  job.set(it, 'paused_from', 'queued')
end
if ended then
  local names = { 'finished_at', 'started_at', 'done', 'failed', 'cancelled', 'reduce_done',
    'reduce_failed', 'reduce_cancelled', 'generation', 'attempts', 'busy_ms', 'lost', 'error' }
  for i, name in ipairs(names) do
    local of_reduce = string.sub(name, 1, 7) == 'reduce_'
    if ARGV[18 + i] ~= '' and (it.fields.fan_in or not of_reduce) then
      job.set(it, name, ARGV[18 + i])
    end
  end
  job.set(it, 'waiting', 0)
  if it.fields.fan_in then
    job.set(it, 'reduce_waiting', 0)
  end
  job.set(it, 'restored_at', now)
end
local is_cancelled = not ended and redis.call('EXISTS', keys.cancel) == 1
admission.clear_the_way(keys, ARGV)
if is_cancelled then
  settle.cancel_fresh(it, keys, now)
else
  job.save(it)
end
if left then
  for _, key in ipairs({ keys.job, keys.document, keys.manifest }) do
    redis.call('PEXPIRE', key, left)
  end
end
hints.changed(channel, id, it)
return { 'restored' }
