--[[ revoke: take a job's chunks from a node; cut chunks and fail subtasks that kill their nodes.
  A subtask is given up once it has killed too many.
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
  ARGV[5] what the system said about its death, or ""
  ARGV[6] take away claims up to this time only, ms, or "" for all
  Output  {chunk, from, to, epoch, …} in order of chunk
  Flags   allow-oom ]]
local keys = lifecycle.keys(KEYS)
local channel, id, node, cause = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local died = cause == 'died'
local how = ARGV[5] ~= '' and ARGV[5] or nil
local claimed_by = tonumber(ARGV[6])

local job = jobs.load(keys.job)
if not job or jobs.has_ended(job) then
  return {}
end
local held = chunks.held_by(keys.chunks, node, claimed_by)
if #held == 0 then
  return {}
end

local now, prefix, over = jobs.now(), lifecycle.level(job), poison.is_over_parallel(job)
local number = jobs.num(job, 'recoveries') + 1
local queued, given_up, cut, subtasks = {}, {}, 0, 0
local function queue(chunk)
  chunk.recovery = number
  chunks.queue(job, keys.chunks, keys.due, chunk)
  queued[#queued + 1] = chunk
  subtasks = subtasks + chunk.to - chunk.from
end
local function give_up(chunk, text)
  jobs.write(job, 'HDEL', keys.chunks, chunk.id)
  given_up[#given_up + 1] = chunk.from
  local deaths = poison.deaths(chunk)
  if lifecycle.fail(job, keys, chunk.from, text, chunk.attempt, node, now, deaths) then
    lifecycle.set_last_error(job, chunk.from, text)
  end
end
local function queue_parts(chunk)
  for _, part in ipairs(chunks.cut(job, chunk, poison.cuts(chunk))) do
    queue(part)
  end
  cut = cut + 1
end

local function take_back(chunk, is_new_death)
  jobs.add(job, 'running_chunks', -1)
  jobs.add(job, prefix .. 'running', chunk.from - chunk.to)
  chunks.requeue(chunk, now)
  local text = poison.verdict(chunk)
  if text then
    give_up(chunk, text)
  elseif is_new_death and poison.is_suspect(chunk) and chunk.to - chunk.from > 1 then
    queue_parts(chunk)
  else
    queue(chunk)
  end
end
for _, chunk in ipairs(held) do
  local is_new_death = died and poison.record_death(chunk, node, how, now)
  if chunks.leave_to_other_holder(chunk, node) then
    chunks.save(job, keys.chunks, chunk)
  else
    take_back(chunk, is_new_death)
  end
end
table.sort(queued, function(a, b) return a.id < b.id end)

recoveries.keep(job, keys.recoveries, {
  at = now, node = node, lost = cause, how = how, chunks = #queued, subtasks = subtasks,
  cut = cut, given_up = #given_up > 0 and given_up or nil, waiting = #queued,
})
jobs.add(job, 'crashes', died and 1 or 0)
jobs.add(job, 'orphaned', cause == 'orphaned' and 1 or 0)
jobs.add(job, 'reissued', #queued)
jobs.add(job, 'lost', subtasks)
jobs.add(job, 'queued_chunks', #queued)
jobs.add(job, prefix .. 'queued', subtasks)
poison.make_refused_due(job, keys.chunks, keys.due, true, over, now)
if lifecycle.advance(job, keys, now) then
  hints.changed(channel, id, job)
else
  jobs.save(job)
  hints.room(channel, id)
end
if jobs.has_ended(job) then
  return {}
end
local answer = {}
for _, chunk in ipairs(queued) do
  for _, value in ipairs({ chunk.id, chunk.from, chunk.to, chunk.epoch }) do
    answer[#answer + 1] = value
  end
end
return answer
