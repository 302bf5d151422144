--[[ restore: bring back a job that the ledger lost, as the journal describes it.
  KEYS[1] job            longshore:{J}
  KEYS[2] document       longshore:{J}:doc
  KEYS[3] manifest       longshore:{J}:manifest
  KEYS[4] deleted        longshore:{J}:deleted
  KEYS[5] cancel         longshore:{J}:cancel
  ARGV[1] events channel ARGV[2] job id
  ARGV[3] document       ARGV[4] manifest (empty: none)
  ARGV[5…] field, value, field, value, … of the job: RESTORE_FIELDS. `state` and `submitted_at` are
          always among them; the numbers of a job that had ended must add up to its totals
  Output  {"restored"} | {"known"} | {"expired"} ]]
local keys = admission.keys(KEYS)
local channel, id, document, manifest = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local fields, misuse = admission.read(ARGV, 5, RESTORE_FIELDS)
if misuse then
  return misuse
end
local function number(name)
  return tonumber(fields.value[name]) or 0
end
if not fields.value.state or not fields.value.submitted_at then
  return redis.error_reply('MISUSE `state` and `submitted_at` of a restored job must be given')
end
local has_ended, now = TERMINAL[fields.value.state], jobs.now()
if has_ended and (number('done') + number('failed') + number('cancelled') ~= number('total')
  or number('reduce_done') + number('reduce_failed') + number('reduce_cancelled')
    ~= number('reduce_total')) then
  return redis.error_reply('MISUSE the numbers of an ended job do not add up to its total')
end
local known = jobs.load(keys.job)
if known and jobs.was_accepted(known) or redis.call('EXISTS', keys.deleted) == 1 then
  return { 'known' }
end
local expires_in = has_ended and number('finished_at') + number('keep_for_ms') - now
if expires_in and expires_in <= 0 then
  return { 'expired' }
end

local job = admission.new_job(keys.job, fields, number('submitted_at'))
if has_ended then
  jobs.put(job, 'restored_at', now)
end
local is_cancelled = not has_ended and redis.call('EXISTS', keys.cancel) == 1
admission.write_document(keys, document, manifest)
if is_cancelled then
  lifecycle.cancel_new(job, keys, now)
else
  jobs.save(job)
end
if expires_in then
  for _, key in ipairs({ keys.job, keys.document, keys.manifest }) do
    redis.call('PEXPIRE', key, expires_in)
  end
end
hints.changed(channel, id, job)
return { 'restored' }
