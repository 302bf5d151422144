--[[ admit: take a job in, all its subtasks waiting.
  KEYS[1] job            longshore:{J}
  KEYS[2] document       longshore:{J}:doc
  KEYS[3] manifest       longshore:{J}:manifest
  KEYS[4] deleted        longshore:{J}:deleted
  KEYS[5] cancel         longshore:{J}:cancel
  KEYS[6] done           longshore:{J}:done
  KEYS[7] chunks         longshore:{J}:chunks
  KEYS[8] retry set      longshore:{J}:retry
  KEYS[9] due            longshore:{J}:due
  KEYS[10] active        longshore:jobs:active; these are not given in a cluster, where they lie elsewhere
  KEYS[11] finished      longshore:jobs:finished
  KEYS[12] expiring      longshore:jobs:expiring
  ARGV[1] events channel ARGV[2] job id
  ARGV[3] digest         ARGV[4] document        ARGV[5] manifest (empty: none)
  ARGV[6] total          ARGV[7] task            ARGV[8] queue
  ARGV[9] tenant         ARGV[10] priority       ARGV[11] keep_for, ms
  ARGV[12] fan_in        ARGV[13] reduce nodes   (12 to 16 are empty where they don't apply)
  ARGV[14] max_parallel  ARGV[15] stop_after_failures   ARGV[16] deadline, ms from now
  ARGV[17] what the globs match beside files, JSON (empty: nothing)
  ARGV[18] most chunks to open   ARGV[19] most subtasks each   ARGV[20] publish within, ms   (none: open none)
  Output  {"accepted", now, chunk, from, to, epoch, …} | {"cancelled", now} | {"known"} | {"conflict"} ]]
local keys = admission.keys(KEYS)
local channel, id, digest = ARGV[1], ARGV[2], ARGV[3]

local misuse = admission.misuse(ARGV)
if misuse then
  return misuse
end
local known = job.load(keys.job)
if known and job.state(known) ~= 'rejected' then
  return { known.fields.digest == digest and 'known' or 'conflict' }
end

local now = job.now()
local it = admission.fresh(keys.job, ARGV, now)
if ARGV[17] ~= '' then
  job.put(it, 'left_out', ARGV[17])
end
local is_cancelled = redis.call('EXISTS', keys.cancel) == 1
admission.clear_the_way(keys, ARGV)
local active, finished, expiring = KEYS[10], KEYS[11], KEYS[12]
if active then
  redis.call('ZADD', active, now, id)
  redis.call('ZREM', finished, id)
  redis.call('ZREM', expiring, id)
end
if is_cancelled then
  settle.cancel_fresh(it, keys, now)
  hints.changed(channel, id, it)
  return { 'cancelled', now }
end
local answer = { 'accepted', now }
if ARGV[18] then
  local own = { done = KEYS[6], chunks = KEYS[7], retry = KEYS[8], due = KEYS[9] }
  local opened = opening.open(it, own, tonumber(ARGV[18]), tonumber(ARGV[19]), tonumber(ARGV[20]))
  for _, value in ipairs(opened) do
    answer[#answer + 1] = value
  end
end
job.save(it)
hints.admitted(channel, id, it, #answer > 2)
return answer
