--[[ _settle: the books of a job, and how it goes on or ends.
  Subtasks and reduce nodes have books of their own (`done`, `reduce_done`, …). A job works on
  one level at a time; `level` gives the prefix of the books that it belongs to. ]]

local settle = {}

local OPEN = { 'waiting', 'queued', 'running', 'retrying' }

function settle.level(it)
  return job.num(it, 'level_from') >= job.num(it, 'total') and 'reduce_' or ''
end

-- How many reduce nodes there are above the current level.
function settle.above(it)
  return job.num(it, 'total') + job.num(it, 'reduce_total') - job.num(it, 'level_to')
end

-- How many of the current level were cancelled by an earlier end; if there are any, the levels
-- above are cancelled too.
function settle.cancelled(it)
  if settle.level(it) == '' then
    return job.num(it, 'cancelled')
  end
  return math.max(0, job.num(it, 'reduce_cancelled') - settle.above(it))
end

local function open_in_books(it, prefix)
  local open = 0
  for _, name in ipairs(OPEN) do
    open = open + job.num(it, prefix .. name)
  end
  return open
end

-- How many of the current level still have to end.
function settle.open(it)
  local prefix = settle.level(it)
  local open = open_in_books(it, prefix)
  if prefix == 'reduce_' and job.num(it, 'reduce_cancelled') == 0 then
    open = open - settle.above(it)
  end
  return open
end

local function cancel_open(it, prefix)
  job.add(it, prefix .. 'cancelled', open_in_books(it, prefix))
  for _, name in ipairs(OPEN) do
    job.set(it, prefix .. name, 0)
  end
end

-- Ends the job by `event`, and counts what was open as cancelled.
local function close(it, now, event, failure)
  job.set(it, 'state', job.next(it, event))
  cancel_open(it, '')
  if it.fields.reduce_total then
    cancel_open(it, 'reduce_')
  end
  job.set(it, 'queued_chunks', 0)
  job.set(it, 'running_chunks', 0)
  job.set(it, 'finished_at', now)
  job.drop(it, 'paused_from')
  job.drop(it, 'eta_ms')
  if failure then
    job.set(it, 'error', failure)
  end
end

-- Ends the job by `event`: drops open chunks and retries, counts what was open as cancelled, lets
-- all keys expire. Saves.
function settle.finish(it, keys, now, event, failure)
  close(it, now, event, failure)
  job.save(it)
  redis.call('UNLINK', keys.chunks, keys.due, keys.retry)
  for _, key in ipairs(keys.kept) do
    redis.call('PEXPIRE', key, it.fields.keep_for_ms)
  end
end

-- Ends a job that comes in after it was cancelled: it has no other keys than these yet. Saves.
function settle.cancel_fresh(it, keys, now)
  close(it, now, 'cancel')
  job.save(it)
  for _, key in ipairs({ keys.job, keys.document, keys.manifest }) do
    redis.call('PEXPIRE', key, it.fields.keep_for_ms)
  end
end

-- Starts the level above: its nodes combine `fan_in` results each.
local function climb(it)
  local from, to = job.num(it, 'level_from'), job.num(it, 'level_to')
  job.set(it, 'level_from', to)
  job.set(it, 'level_to', to + math.ceil((to - from) / job.num(it, 'fan_in')))
  job.set(it, 'cursor', to)
  if job.state(it) == 'paused' then
    job.set(it, 'paused_from', 'reducing')
  elseif job.state(it) ~= 'reducing' then
    job.set(it, 'state', job.next(it, 'reduce'))
  end
end

-- Fails one index for good. Gives whether that is news.
function settle.fail(it, keys, index, text, attempt, node, now, deaths)
  if redis.call('GETBIT', keys.done, index) == 1
    or redis.call('SETBIT', keys.failed, index, 1) == 1 then
    return false
  end
  job.add(it, settle.level(it) .. 'failed', 1)
  failures.keep(keys, index, text, attempt, node, now, deaths)
  return true
end

-- Shows an index's failure with the job.
function settle.tell_last_error(it, index, text)
  local noun = settle.level(it) == '' and 'subtask' or 'reduce node'
  job.set(it, 'last_error', string.format('%s %.0f: ', noun, index) .. failures.shortened(text))
end

-- After something was settled: ends the job, takes it to its next level, or leaves it. Gives whether it changed; saves if so.
function settle.advance(it, keys, now)
  local prefix = settle.level(it)
  local failed, limit = job.num(it, prefix .. 'failed'), tonumber(it.fields.stop_after_failures)
  local has_failed = limit and failed >= limit
  if not has_failed and (job.num(it, prefix .. 'running') > 0 or settle.open(it) > 0) then
    return false
  end
  local function part(count, what)
    return string.format('%.0f of %.0f %s %s', count, job.num(it, prefix .. 'total'),
      prefix == '' and 'subtasks' or 'reduce nodes', what)
  end
  if has_failed then
    settle.finish(it, keys, now, 'fail',
      string.format('%s; stop_after_failures is %.0f', part(failed, 'failed'), limit))
    return true
  end
  local cancelled = settle.cancelled(it)
  if failed > 0 then
    settle.finish(it, keys, now, 'fail', part(failed, 'failed'))
  elseif cancelled > 0 then
    settle.finish(it, keys, now, 'fail', part(cancelled, 'were cancelled'))
  elseif settle.above(it) > 0 then
    climb(it)
    job.save(it)
  else
    settle.finish(it, keys, now, 'succeed')
  end
  return true
end

-- All keys of a job in the order in which every operation that may end one declares them.
function settle.keys(KEYS)
  local keys = {
    job = KEYS[1], doc = KEYS[2], manifest = KEYS[3], done = KEYS[4], failed = KEYS[5],
    errors = KEYS[6], order = KEYS[7], chunks = KEYS[8], retry = KEYS[9], results = KEYS[10],
    recoveries = KEYS[11], due = KEYS[12],
  }
  -- What is left of a job that has ended, for a while.
  keys.kept = {
    keys.job, keys.doc, keys.manifest, keys.done, keys.failed, keys.errors, keys.order,
    keys.results, keys.recoveries,
  }
  return keys
end
