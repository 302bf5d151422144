--[[ audit: recount a job from its raw keys, and give that beside the counts in its hash.
  KEYS[1] job            longshore:{J}
  KEYS[2] done           longshore:{J}:done
  KEYS[3] failed         longshore:{J}:failed
  KEYS[4] chunks         longshore:{J}:chunks
  KEYS[5] retry set      longshore:{J}:retry
  KEYS[6] due            longshore:{J}:due
  Output  {} if the job is absent | {{fields of the job}, {name, number, name, number, …}}
  Flags   no-writes ]]
local key, done, failed = KEYS[1], KEYS[2], KEYS[3]
local open_chunks, retry, due = KEYS[4], KEYS[5], KEYS[6]
-- Subtasks that are both done and failed are searched one by one, so the search has a bound.
local MAX_CHECKED = 10000

local job = jobs.load(key)
if not job then
  return {}
end
local total = jobs.num(job, 'total')
local nodes_to = total + jobs.num(job, 'reduce_total')
local counted = {
  done = bitmap.count(done, 0, total),
  failed = bitmap.count(failed, 0, total),
  reduce_done = bitmap.count(done, total, nodes_to),
  reduce_failed = bitmap.count(failed, total, nodes_to),
  queued = 0, running = 0, queued_chunks = 0, running_chunks = 0,
  retrying = redis.call('ZCARD', retry),
  settled_in_chunks = 0, outside_level = 0, overlapping = 0, done_and_failed = 0,
  misplaced_in_due = 0,
}
local level_from, level_to = jobs.num(job, 'level_from'), jobs.num(job, 'level_to')

-- Adjacent chunks are counted as one: a command for each of thousands of chunks would take longer
-- than everything else here.
local starts, ends, run_from, run_to = {}, {}, 0, 0
local function count_settled(from, to)
  counted.settled_in_chunks = counted.settled_in_chunks
    + bitmap.count(done, from, to) + bitmap.count(failed, from, to)
end
local due_of, listed = {}, redis.call('ZRANGE', due, 0, -1, 'WITHSCORES')
for i = 1, #listed, 2 do
  due_of[listed[i]] = tonumber(listed[i + 1])
end
local flat = redis.call('HGETALL', open_chunks)
for i = 2, #flat, 2 do
  local from, to, state, due_at = chunks.extent(flat[i])
  if due_of[flat[i - 1]] ~= (state == CHUNK_QUEUED and due_at or nil) then
    counted.misplaced_in_due = counted.misplaced_in_due + 1
  end
  due_of[flat[i - 1]] = nil
  counted[state] = counted[state] + to - from
  counted[state .. '_chunks'] = counted[state .. '_chunks'] + 1
  if from < level_from or to > level_to then
    counted.outside_level = counted.outside_level + 1
  end
  if ends[from] then
    counted.overlapping = counted.overlapping + 1
    count_settled(from, to)
  else
    starts[#starts + 1], ends[from] = from, to
  end
end
for _ in pairs(due_of) do
  counted.misplaced_in_due = counted.misplaced_in_due + 1
end
table.sort(starts)
for _, from in ipairs(starts) do
  if from < run_to then
    counted.overlapping = counted.overlapping + 1
  end
  if from ~= run_to then
    count_settled(run_from, run_to)
    run_from = from
  end
  run_to = ends[from]
end
count_settled(run_from, run_to)
local index = bitmap.next_set(failed, 0, nodes_to)
for _ = 1, MAX_CHECKED do
  if not index then
    break
  end
  counted.done_and_failed = counted.done_and_failed + redis.call('GETBIT', done, index)
  index = bitmap.next_set(failed, index + 1, nodes_to)
end
local cursor = jobs.num(job, 'cursor')
counted.not_done_from_cursor = math.max(0, level_to - cursor) - bitmap.count(done, cursor, level_to)

local answer = {}
for name, number in pairs(counted) do
  answer[#answer + 1] = name
  answer[#answer + 1] = number
end
return { redis.call('HGETALL', key), answer }
