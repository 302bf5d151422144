--[[ commit: record the outcomes of the next subtasks of chunks of a job.
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
  ARGV[3…] for each commit: chunk, token (hex), from, busy in ms, number of runs, the runs. A run is
          "success", count | "results", count, lines | "retry", delay in ms, error |
          "failure", error | "defer", delay in ms
  Output  one answer a commit, in their order: {"settled", state} | {"fenced"} | {"misuse", why} ]]
local keys = lifecycle.keys(KEYS)
local channel, id = ARGV[1], ARGV[2]
local OPERANDS = { success = 1, results = 2, retry = 2, failure = 1, defer = 1 }

local commits, ids, at = {}, {}, 3
while at <= #ARGV do
  local commit = {
    chunk = ARGV[at], token = ARGV[at + 1], from = tonumber(ARGV[at + 2]),
    busy = tonumber(ARGV[at + 3]), runs = {},
  }
  local stop, count = commit.from, tonumber(ARGV[at + 4])
  at = at + 5
  for i = 1, count do
    local kind = ARGV[at]
    if not OPERANDS[kind] then
      return redis.error_reply('MISUSE unknown kind of run: ' .. tostring(kind))
    end
    local operand = ARGV[at + 1]
    local length = (kind == 'success' or kind == 'results') and tonumber(operand) or 1
    commit.runs[i] = {
      kind = kind, from = stop, to = stop + length, lines = ARGV[at + 2],
      failure = kind == 'retry' and ARGV[at + 2] or operand, delay = tonumber(operand),
    }
    stop, at = stop + length, at + 1 + OPERANDS[kind]
  end
  commit.stop = stop
  commits[#commits + 1], ids[#ids + 1] = commit, commit.chunk
end

local job, now = jobs.load(keys.job), jobs.now()
local open = job and chunks.load_all(keys.chunks, ids)
local has_changed, has_closed = false, false

local function is_done(index)
  return redis.call('GETBIT', keys.done, index) == 1
end

local function try_again(prefix, index, attempt, deferrals, tried, delay)
  if is_done(index) then
    return
  end
  local member = string.format('%.0f:%.0f', index, attempt)
  if deferrals > 0 or tried ~= '-' then
    member = string.format('%s:%.0f', member, deferrals)
  end
  if tried ~= '-' then
    member = member .. ':' .. tried
  end
  redis.call('ZADD', keys.retry, now + delay, member)
  jobs.add(job, prefix .. 'retrying', 1)
  return true
end

local function succeed(prefix, run, start)
  local from = math.max(run.from, start)
  local before
  if run.to - run.from == 1 then
    before = redis.call('SETBIT', keys.done, from, 1)
  else
    before = bitmap.count(keys.done, from, run.to)
  end
  if run.kind == 'results' and before == 0 and from == run.from then
    results.keep(job, keys.results, run.from, run.to, run.lines)
  elseif run.kind == 'results' and run.to - run.from > 1 then
    results.keep_new(job, keys.results, keys.done, run.from, from, run.to, run.lines)
  end
  if run.to - run.from > 1 then
    bitmap.write(keys.done, from, run.to, 1)
  end
  jobs.add(job, prefix .. 'done', run.to - from - before)
end

-- Runs before the chunk's start were settled by the chunk's other holder.
local function settle_runs(runs, chunk, node, prefix)
  local last_failure
  local tried = chunks.add_tried(chunk.tried, node)
  -- Refunded attempts don't count: with any, this attempt was not the last one.
  local kept, refunded = chunks.without_refunded(job, tried)
  for _, run in ipairs(runs) do
    if run.to <= chunk.from then
      -- A repeat.
    elseif run.kind == 'failure' and refunded > 0 then
      local attempt = math.max(1, chunk.attempt + 1 - refunded)
      if try_again(prefix, run.from, attempt, 0, kept, 0) then
        last_failure = run
      end
    elseif run.kind == 'failure' then
      if lifecycle.fail(job, keys, run.from, run.failure, chunk.attempt, node, now) then
        last_failure = run
      end
    elseif run.kind == 'retry' then
      if try_again(prefix, run.from, chunk.attempt + 1, 0, tried, run.delay) then
        last_failure = run
      end
    elseif run.kind == 'defer' then
      try_again(prefix, run.from, chunk.attempt, chunk.deferrals + 1, chunk.tried, run.delay)
    else
      succeed(prefix, run, chunk.from)
    end
  end
  if last_failure then
    lifecycle.set_last_error(job, last_failure.from, last_failure.failure)
  end
end

-- Keeps the rest of the chunk; gives nil if nothing is left of the chunk.
local function keep_rest(chunk)
  if chunk.from < chunk.to then
    chunks.save(job, keys.chunks, chunk)
    return chunk
  end
  local over = poison.is_over_parallel(job)
  jobs.write(job, 'HDEL', keys.chunks, chunk.id)
  jobs.add(job, 'running_chunks', -1)
  poison.make_refused_due(job, keys.chunks, keys.due, poison.is_suspect(chunk), over, now)
  has_closed = true
end

local function commit(this)
  if not job or jobs.has_ended(job) then
    return { 'fenced' }
  end
  local chunk = open[this.chunk]
  local node = chunks.holder_by(chunk, this.token)
  if not node then
    jobs.add(job, 'fenced', 1)
    return { 'fenced' }
  end
  if this.stop <= chunk.from then
    return { 'settled', jobs.state(job) }
  end
  if this.from > chunk.from then
    return { 'misuse', string.format('the commit starts at %.0f, the chunk at %.0f', this.from,
      chunk.from) }
  end
  if this.stop > chunk.to then
    return { 'misuse', string.format('the commit ends at %.0f, the chunk at %.0f', this.stop,
      chunk.to) }
  end
  local prefix = lifecycle.level(job)
  settle_runs(this.runs, chunk, node, prefix)
  local settled = this.stop - chunk.from
  chunk.from = this.stop
  open[this.chunk] = keep_rest(chunk)
  jobs.add(job, prefix .. 'running', -settled)
  jobs.add(job, 'attempts', settled)
  jobs.add(job, 'busy_ms', this.busy)
  has_changed = lifecycle.advance(job, keys, now) or has_changed
  return { 'settled', jobs.state(job) }
end

local answers = {}
for _, this in ipairs(commits) do
  answers[#answers + 1] = commit(this)
end
if job then
  jobs.save(job)
  if has_changed then
    hints.committed(channel, id, job, keys)
  elseif has_closed then
    hints.room(channel, id)
  end
end
return answers
