--[[ retry: try failed subtasks again, under a new generation, with fresh attempts.
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
  ARGV[3] "all" | "these" | "unlisted" (the caller's list is empty or too long)
  ARGV[4…] indices, for "these"
  Output  {"now", state} | {"illegal", state} | {"absent"} | {"unlisted"} |
          {"not_failed", index} ]]
local keys = lifecycle.keys(KEYS)
local channel, id, which = ARGV[1], ARGV[2], ARGV[3]
local MAX_INDICES, BATCH = 10000, 1000

local job = jobs.load(keys.job)
if not job then
  return { 'absent' }
end
local before = jobs.state(job)
local after = jobs.next(job, 'retry')
if not after then
  return { 'illegal', before }
end
if which == 'unlisted' then
  return { 'unlisted' }
end
local level_from, level_to = jobs.num(job, 'level_from'), jobs.num(job, 'level_to')
local indices, seen = {}, {}
if which == 'these' then
  for i = 4, #ARGV do
    local index = tonumber(ARGV[i])
    if index < level_from or index >= level_to
      or redis.call('GETBIT', keys.failed, ARGV[i]) == 0 then
      return { 'not_failed', ARGV[i] }
    end
    if not seen[index] then
      seen[index] = true
      indices[#indices + 1] = index
    end
  end
elseif not jobs.has_ended(job) then
  local index = bitmap.next_set(keys.failed, level_from, level_to)
  while index and #indices < MAX_INDICES do
    indices[#indices + 1] = index
    index = bitmap.next_set(keys.failed, index + 1, level_to)
  end
  if #indices == 0 then
    return { 'now', before }
  end
end

local prefix, above, now = lifecycle.level(job), lifecycle.above(job), jobs.now()

-- Puts the chosen indices into the retry set, as attempt 1, due now.
local function retry_chosen()
  for first = 1, #indices, BATCH do
    local members, names = {}, {}
    for i = first, math.min(first + BATCH - 1, #indices) do
      redis.call('SETBIT', keys.failed, indices[i], 0)
      members[#members + 1] = now
      members[#members + 1] = string.format('%.0f:1', indices[i])
      names[#names + 1] = indices[i]
    end
    redis.call('ZADD', keys.retry, unpack(members))
    subtask_errors.forget(keys, names)
  end
  jobs.add(job, prefix .. 'failed', -#indices)
  jobs.add(job, prefix .. 'retrying', #indices)
end
local function wait_again_above()
  jobs.add(job, 'reduce_waiting', above)
  jobs.add(job, 'reduce_cancelled', -above)
end
-- Makes every index of the level that is not done wait again.
local function restart_level()
  redis.call('UNLINK', keys.failed, keys.errors, keys.order)
  local cancelled = lifecycle.cancelled(job)
  jobs.add(job, prefix .. 'waiting', jobs.num(job, prefix .. 'failed') + cancelled)
  jobs.set(job, prefix .. 'failed', 0)
  jobs.add(job, prefix .. 'cancelled', -cancelled)
  jobs.set(job, 'cursor', level_from)
  wait_again_above()
end
-- A job that was restored from the journal has no bitmaps, only numbers: all of it runs again.
local function forget_outcomes()
  jobs.add(job, 'failed', jobs.num(job, 'done'))
  jobs.set(job, 'done', 0)
  if job.fields.reduce_total then
    jobs.set(job, 'reduce_done', 0)
    jobs.set(job, 'reduce_failed', 0)
    jobs.set(job, 'reduce_cancelled', above)
  end
  jobs.drop(job, 'restored_at')
end

if jobs.has_ended(job) then
  if which == 'these' then
    local rest = lifecycle.cancelled(job)
    retry_chosen()
    jobs.set(job, 'cursor', level_to)
    if rest == 0 then
      wait_again_above()
    end
  else
    if job.fields.restored_at then
      forget_outcomes()
    end
    restart_level()
  end
  jobs.set(job, 'state', after)
  for _, name in ipairs({ 'finished_at', 'deadline_at', 'error' }) do
    jobs.drop(job, name)
  end
  for _, key in ipairs(keys.kept) do
    redis.call('PERSIST', key)
  end
else
  retry_chosen()
end
jobs.add(job, 'generation', 1)
jobs.save(job)
hints.changed(channel, id, job)
return { 'now', after }
