--[[ admit: accept a new job, all of its subtasks waiting.
  KEYS[1] job            longshore:{J}
  KEYS[2] document       longshore:{J}:doc
  KEYS[3] manifest       longshore:{J}:manifest
  KEYS[4] deleted        longshore:{J}:deleted
  KEYS[5] cancel         longshore:{J}:cancel
  KEYS[6] done           longshore:{J}:done
  KEYS[7] chunks         longshore:{J}:chunks
  KEYS[8] retry set      longshore:{J}:retry
  KEYS[9] due            longshore:{J}:due
  KEYS[10] active        longshore:jobs:active; 10 to 12 are absent in a cluster, where they lie in
  KEYS[11] finished      longshore:jobs:finished                                     another slot
  KEYS[12] expiring      longshore:jobs:expiring
  ARGV[1] events channel ARGV[2] job id
  ARGV[3] document       ARGV[4] manifest (empty: none)
  ARGV[5] most chunks to open (empty: none)   ARGV[6] most subtasks each
  ARGV[7] publish within, ms
  ARGV[8…] field, value, field, value, … of the job: ADMISSION_FIELDS
  Output  {"accepted", now, chunk, from, to, epoch, …} | {"cancelled", now} | {"known"} |
          {"conflict"} ]]
local keys = admission.keys(KEYS)
local active, finished, expiring = KEYS[10], KEYS[11], KEYS[12]
local channel, id, document, manifest = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local most_chunks, most_subtasks, within = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])

local fields, misuse = admission.read(ARGV, 8, ADMISSION_FIELDS)
if misuse then
  return misuse
end
local known = jobs.load(keys.job)
if known and jobs.was_accepted(known) then
  return { known.fields.digest == fields.value.digest and 'known' or 'conflict' }
end

local now = jobs.now()
local job = admission.new_job(keys.job, fields, now)
local is_cancelled = redis.call('EXISTS', keys.cancel) == 1
admission.write_document(keys, document, manifest)
if active then
  redis.call('ZADD', active, now, id)
  redis.call('ZREM', finished, id)
  redis.call('ZREM', expiring, id)
end
if is_cancelled then
  lifecycle.cancel_new(job, keys, now)
  hints.changed(channel, id, job)
  return { 'cancelled', now }
end
local answer = { 'accepted', now }
if most_chunks then
  local own = { done = KEYS[6], chunks = KEYS[7], retry = KEYS[8], due = KEYS[9] }
  local opened = chunk_opening.open(job, own, most_chunks, most_subtasks, within)
  for _, value in ipairs(opened) do
    answer[#answer + 1] = value
  end
end
jobs.save(job)
hints.admitted(channel, id, job, #answer > 2)
return answer
