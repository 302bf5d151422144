--[[ _lifecycle: the counts of a job, its levels, and its end.
  Subtasks and reduce nodes have counts of their own (`done`, `reduce_done`, …). A job works on one
  level at a time; `level` gives the prefix of the counts that the level belongs to. ]]

local lifecycle = {}

local OPEN = { 'waiting', 'queued', 'running', 'retrying' }

function lifecycle.level(job)
  return jobs.num(job, 'level_from') >= jobs.num(job, 'total') and 'reduce_' or ''
end

-- How many reduce nodes there are above the current level.
function lifecycle.above(job)
  return jobs.num(job, 'total') + jobs.num(job, 'reduce_total') - jobs.num(job, 'level_to')
end

-- How many indices of the current level were cancelled by an earlier end of the job; if there are
-- any, the levels above are cancelled too.
function lifecycle.cancelled(job)
  if lifecycle.level(job) == '' then
    return jobs.num(job, 'cancelled')
  end
  return math.max(0, jobs.num(job, 'reduce_cancelled') - lifecycle.above(job))
end

local function count_open(job, prefix)
  local open = 0
  for _, name in ipairs(OPEN) do
    open = open + jobs.num(job, prefix .. name)
  end
  return open
end

-- How many indices of the current level are neither done, failed nor cancelled.
function lifecycle.open(job)
  local prefix = lifecycle.level(job)
  local open = count_open(job, prefix)
  if prefix == 'reduce_' and jobs.num(job, 'reduce_cancelled') == 0 then
    open = open - lifecycle.above(job)
  end
  return open
end

local function cancel_open(job, prefix)
  jobs.add(job, prefix .. 'cancelled', count_open(job, prefix))
  for _, name in ipairs(OPEN) do
    jobs.set(job, prefix .. name, 0)
  end
end

-- Ends the job by `event`, and counts its open indices as cancelled.
local function close(job, now, event, failure)
  jobs.set(job, 'state', jobs.next(job, event))
  cancel_open(job, '')
  if job.fields.reduce_total then
    cancel_open(job, 'reduce_')
  end
  jobs.set(job, 'queued_chunks', 0)
  jobs.set(job, 'running_chunks', 0)
  jobs.set(job, 'finished_at', now)
  jobs.drop(job, 'paused_from')
  jobs.drop(job, 'eta_ms')
  if failure then
    jobs.set(job, 'error', failure)
  end
end

-- Ends the job by `event`: drops open chunks and retries, counts open indices as cancelled, and
-- lets all keys expire. Saves the job.
function lifecycle.finish(job, keys, now, event, failure)
  close(job, now, event, failure)
  jobs.save(job)
  redis.call('UNLINK', keys.chunks, keys.due, keys.retry)
  for _, key in ipairs(keys.kept) do
    redis.call('PEXPIRE', key, job.fields.keep_for_ms)
  end
end

-- Ends a new job that was cancelled before it was admitted; it has only these keys so far. Saves
-- the job.
function lifecycle.cancel_new(job, keys, now)
  close(job, now, 'cancel')
  jobs.save(job)
  for _, key in ipairs({ keys.job, keys.document, keys.manifest }) do
    redis.call('PEXPIRE', key, job.fields.keep_for_ms)
  end
end

-- Starts the level above, whose nodes combine `fan_in` results each. A paused job stays paused; the
-- state that it will return to moves on in place of its own.
local function start_next_level(job)
  local from, to = jobs.num(job, 'level_from'), jobs.num(job, 'level_to')
  jobs.set(job, 'level_from', to)
  jobs.set(job, 'level_to', to + math.ceil((to - from) / jobs.num(job, 'fan_in')))
  jobs.set(job, 'cursor', to)
  local field = job.fields.paused_from and 'paused_from' or 'state'
  local to = NEXT[job.fields[field]].reduce
  if to then
    jobs.set(job, field, to)
  end
end

-- Fails one index for good. Gives false if the index was done or failed already.
function lifecycle.fail(job, keys, index, text, attempt, node, now, deaths)
  if redis.call('GETBIT', keys.done, index) == 1
    or redis.call('SETBIT', keys.failed, index, 1) == 1 then
    return false
  end
  jobs.add(job, lifecycle.level(job) .. 'failed', 1)
  subtask_errors.keep(keys, index, text, attempt, node, now, deaths)
  return true
end

-- Shows an index's failure as the job's last error.
function lifecycle.set_last_error(job, index, text)
  local noun = lifecycle.level(job) == '' and 'subtask' or 'reduce node'
  local shown = subtask_errors.shortened(text)
  jobs.set(job, 'last_error', string.format('%s %.0f: ', noun, index) .. shown)
end

-- Called after indices were settled: ends the job, starts its next level, or does nothing. Gives
-- whether the job changed; then the job is saved.
function lifecycle.advance(job, keys, now)
  local prefix = lifecycle.level(job)
  local failed, limit = jobs.num(job, prefix .. 'failed'), tonumber(job.fields.stop_after_failures)
  local has_failed = limit and failed >= limit
  if not has_failed and (jobs.num(job, prefix .. 'running') > 0 or lifecycle.open(job) > 0) then
    return false
  end
  local function part(count, what)
    return string.format('%.0f of %.0f %s %s', count, jobs.num(job, prefix .. 'total'),
      prefix == '' and 'subtasks' or 'reduce nodes', what)
  end
  if has_failed then
    lifecycle.finish(job, keys, now, 'fail',
      string.format('%s; stop_after_failures is %.0f', part(failed, 'failed'), limit))
    return true
  end
  local cancelled = lifecycle.cancelled(job)
  if failed > 0 then
    lifecycle.finish(job, keys, now, 'fail', part(failed, 'failed'))
  elseif cancelled > 0 then
    lifecycle.finish(job, keys, now, 'fail', part(cancelled, 'were cancelled'))
  elseif lifecycle.above(job) > 0 then
    start_next_level(job)
    jobs.save(job)
  else
    lifecycle.finish(job, keys, now, 'succeed')
  end
  return true
end

-- All keys of a job, in the order in which every operation that may end a job declares them.
function lifecycle.keys(KEYS)
  local keys = {
    job = KEYS[1], doc = KEYS[2], manifest = KEYS[3], done = KEYS[4], failed = KEYS[5],
    errors = KEYS[6], order = KEYS[7], chunks = KEYS[8], retry = KEYS[9], results = KEYS[10],
    recoveries = KEYS[11], due = KEYS[12],
  }
  -- The keys that an ended job keeps until it expires.
  keys.kept = {
    keys.job, keys.doc, keys.manifest, keys.done, keys.failed, keys.errors, keys.order,
    keys.results, keys.recoveries,
  }
  return keys
end
