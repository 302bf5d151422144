--[[ retry: re-open what failed, under a new generation, with fresh attempts.
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
  ARGV[3] "all" | "these" | "unlisted" (the list is empty or too long)
  ARGV[4…] indices, for "these"
  Output  {"now", state} | {"illegal", state} | {"absent"} | {"unlisted"} |
          {"not_failed", index} ]]
local keys = settle.keys(KEYS)
local channel, id, which = ARGV[1], ARGV[2], ARGV[3]
local MOST, BATCH = 10000, 1000

local it = job.load(keys.job)
if not it then
  return { 'absent' }
end
local before = job.state(it)
local after = job.next(it, 'retry')
if not after then
  return { 'illegal', before }
end
if which == 'unlisted' then
  return { 'unlisted' }
end
local level_from, level_to = job.num(it, 'level_from'), job.num(it, 'level_to')
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
elseif not job.has_ended(it) then
  local index = bits.next_set(keys.failed, level_from, level_to)
  while index and #indices < MOST do
    indices[#indices + 1] = index
    index = bits.next_set(keys.failed, index + 1, level_to)
  end
  if #indices == 0 then
    return { 'now', before }
  end
end

local prefix, above, now = settle.level(it), settle.above(it), job.now()

-- Into the retry set, as attempt 1, due now.
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
    failures.forget(keys, names)
  end
  job.add(it, prefix .. 'failed', -#indices)
  job.add(it, prefix .. 'retrying', #indices)
end
local function wait_again_above()
  job.add(it, 'reduce_waiting', above)
  job.add(it, 'reduce_cancelled', -above)
end
-- Everything of the level that is not done waits again.
local function restart_level()
  redis.call('UNLINK', keys.failed, keys.errors, keys.order)
  local cancelled = settle.cancelled(it)
  job.add(it, prefix .. 'waiting', job.num(it, prefix .. 'failed') + cancelled)
  job.set(it, prefix .. 'failed', 0)
  job.add(it, prefix .. 'cancelled', -cancelled)
  job.set(it, 'cursor', level_from)
  wait_again_above()
end
-- What was put back from the journal is known by its numbers alone: all of it runs again.
local function forget_outcomes()
  job.add(it, 'failed', job.num(it, 'done'))
  job.set(it, 'done', 0)
  if it.fields.reduce_total then
    job.set(it, 'reduce_done', 0)
    job.set(it, 'reduce_failed', 0)
    job.set(it, 'reduce_cancelled', above)
  end
  job.drop(it, 'restored_at')
end

if job.has_ended(it) then
  if which == 'these' then
    local rest = settle.cancelled(it)
    retry_chosen()
    job.set(it, 'cursor', level_to)
    if rest == 0 then
      wait_again_above()
    end
  else
    if it.fields.restored_at then
      forget_outcomes()
    end
    restart_level()
  end
  job.set(it, 'state', after)
  for _, name in ipairs({ 'finished_at', 'deadline_at', 'error' }) do
    job.drop(it, name)
  end
  for _, key in ipairs(keys.kept) do
    redis.call('PERSIST', key)
  end
else
  retry_chosen()
end
job.add(it, 'generation', 1)
job.save(it)
hints.changed(channel, id, it)
return { 'now', after }
