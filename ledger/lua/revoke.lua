--[[ revoke: take away what a node holds of the job; cut what nodes die of, and give up a
  subtask that killed too many.
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
  ARGV[1] events channel ARGV[2] job id   ARGV[3] node   ARGV[4] "died" | "left" | "orphaned"
  ARGV[5] what the system said of its death, or ""
  ARGV[6] the time of the latest claim that is taken away, or "" for all
  Output  {chunk, from, to, epoch, …} in order of chunk
  Flags   allow-oom ]]
local keys = settle.keys(KEYS)
local channel, id, node, lost = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local died = lost == 'died'
local how = ARGV[5] ~= '' and ARGV[5] or nil
local claimed_by = tonumber(ARGV[6])

local it = job.load(keys.job)
if not it or job.has_ended(it) then
  return {}
end
local held = chunks.held_by(keys.chunks, node, claimed_by)
if #held == 0 then
  return {}
end

local now, prefix, over = job.now(), settle.level(it), poison.is_over_parallel(it)
local number = job.num(it, 'recoveries') + 1
local queued, given_up, cut, subtasks = {}, {}, 0, 0
local function queue(chunk)
  chunk.recovery = number
  chunks.queue(it, keys.chunks, keys.due, chunk)
  queued[#queued + 1] = chunk
  subtasks = subtasks + chunk.to - chunk.from
end
local function give_up(chunk, text)
  job.write(it, 'HDEL', keys.chunks, chunk.id)
  given_up[#given_up + 1] = chunk.from
  if settle.fail(it, keys, chunk.from, text, chunk.attempt, node, now, poison.deaths(chunk)) then
    settle.tell_last_error(it, chunk.from, text)
  end
end
local function queue_parts(chunk)
  for _, part in ipairs(chunks.cut(it, chunk, poison.cuts(chunk))) do
    queue(part)
  end
  cut = cut + 1
end

local function take_back(chunk, is_news)
  job.add(it, 'running_chunks', -1)
  job.add(it, prefix .. 'running', chunk.from - chunk.to)
  chunks.requeue(chunk, now)
  local text = poison.verdict(chunk)
  if text then
    give_up(chunk, text)
  elseif is_news and poison.is_suspect(chunk) and chunk.to - chunk.from > 1 then
    queue_parts(chunk)
  else
    queue(chunk)
  end
end
for _, chunk in ipairs(held) do
  local is_news = died and poison.charge(chunk, node, how, now)
  if chunks.leave_to_the_other(chunk, node) then
    chunks.save(it, keys.chunks, chunk)
  else
    take_back(chunk, is_news)
  end
end
table.sort(queued, function(a, b) return a.id < b.id end)

recoveries.keep(it, keys.recoveries, {
  at = now, node = node, lost = lost, how = how, chunks = #queued, subtasks = subtasks,
  cut = cut, given_up = #given_up > 0 and given_up or nil, waiting = #queued,
})
job.add(it, 'crashes', died and 1 or 0)
job.add(it, 'orphaned', lost == 'orphaned' and 1 or 0)
job.add(it, 'reissued', #queued)
job.add(it, 'lost', subtasks)
job.add(it, 'queued_chunks', #queued)
job.add(it, prefix .. 'queued', subtasks)
poison.offer_again(it, keys.chunks, keys.due, true, over, now)
if settle.advance(it, keys, now) then
  hints.changed(channel, id, it)
else
  job.save(it)
  hints.room(channel, id)
end
if job.has_ended(it) then
  return {}
end
local answer = {}
for _, chunk in ipairs(queued) do
  for _, value in ipairs({ chunk.id, chunk.from, chunk.to, chunk.epoch }) do
    answer[#answer + 1] = value
  end
end
return answer
