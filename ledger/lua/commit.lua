--[[ commit: settle a prefix of what is left of a chunk.
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
  ARGV[1] events channel ARGV[2] job id
  ARGV[3] chunk          ARGV[4] token (hex)   ARGV[5] from   ARGV[6] busy, ms
  ARGV[7…] runs, one after the other:
          "success", count | "results", count, lines | "retry", delay in ms, error |
          "failed", error | "defer", delay in ms
  Output  {"settled", state} | {"fenced"} ]]
local keys = settle.keys(KEYS)
local channel, id = ARGV[1], ARGV[2]
local chunk_id, token = ARGV[3], ARGV[4]
local from, busy = tonumber(ARGV[5]), tonumber(ARGV[6])
local OPERANDS = { success = 1, results = 2, retry = 2, failed = 1, defer = 1 }

local runs, stop, at = {}, from, 7
while at <= #ARGV do
  local kind = ARGV[at]
  if not OPERANDS[kind] then
    return redis.error_reply('MISUSE unknown kind of run: ' .. tostring(kind))
  end
  local operand = ARGV[at + 1]
  local count = (kind == 'success' or kind == 'results') and tonumber(operand) or 1
  runs[#runs + 1] = {
    kind = kind, from = stop, to = stop + count,
    lines = ARGV[at + 2], failure = kind == 'retry' and ARGV[at + 2] or operand, delay = tonumber(operand),
  }
  stop, at = stop + count, at + 1 + OPERANDS[kind]
end

local it = job.load(keys.job)
local chunk = it and chunks.load(keys.chunks, chunk_id)
if not it or job.has_ended(it) or not chunks.is_held(chunk, token) then
  return { 'fenced' }
end
if stop <= chunk.from then
  return { 'settled', job.state(it) }
end
if from ~= chunk.from then
  return redis.error_reply(string.format('MISUSE the commit starts at %.0f, the chunk at %.0f',
    from, chunk.from))
end
if stop > chunk.to then
  return redis.error_reply(string.format('MISUSE the commit ends at %.0f, the chunk at %.0f',
    stop, chunk.to))
end

local now, prefix = job.now(), settle.level(it)
local function is_done(index)
  return redis.call('GETBIT', keys.done, index) == 1
end
local last_failure
local function try_again(index, attempt, deferrals, delay)
  if is_done(index) then
    return
  end
  local member = string.format('%.0f:%.0f', index, attempt)
  if deferrals > 0 then
    member = string.format('%s:%.0f', member, deferrals)
  end
  redis.call('ZADD', keys.retry, now + delay, member)
  job.add(it, prefix .. 'retrying', 1)
  return true
end
local function succeed(run)
  local before = bits.count(keys.done, run.from, run.to)
  if run.kind == 'results' and before == 0 then
    results.keep(keys.results, run.from, run.to, run.lines)
  elseif run.kind == 'results' then
    results.keep_new(keys.results, keys.done, run.from, run.to, run.lines)
  end
  bits.write(keys.done, run.from, run.to, 1)
  job.add(it, prefix .. 'done', run.to - run.from - before)
end
local function fail(run)
  if not is_done(run.from) and redis.call('SETBIT', keys.failed, run.from, 1) == 0 then
    job.add(it, prefix .. 'failed', 1)
    failures.keep(keys, run.from, run.failure, chunk, now)
    last_failure = run
  end
end
for _, run in ipairs(runs) do
  if run.kind == 'failed' then
    fail(run)
  elseif run.kind == 'retry' then
    if try_again(run.from, chunk.attempt + 1, 0, run.delay) then
      last_failure = run
    end
  elseif run.kind == 'defer' then
    try_again(run.from, chunk.attempt, chunk.deferrals + 1, run.delay)
  else
    succeed(run)
  end
end

if last_failure then
  local noun = prefix == '' and 'subtask' or 'reduce node'
  local what = string.format('%s %.0f: ', noun, last_failure.from)
  job.set(it, 'last_error', what .. failures.shortened(last_failure.failure))
end

chunk.from = stop
local closed = chunk.from == chunk.to
if closed then
  redis.call('HDEL', keys.chunks, chunk_id)
  job.add(it, 'running_chunks', -1)
else
  chunks.save(keys.chunks, chunk)
end
job.add(it, prefix .. 'running', from - stop)
job.add(it, 'attempts', stop - from)
job.add(it, 'busy_ms', busy)
if settle.advance(it, keys, now) then
  job.announce(channel, id, it)
elseif closed then
  job.announce_room(channel, id)
end
return { 'settled', job.state(it) }
