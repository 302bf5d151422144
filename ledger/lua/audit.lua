--[[ audit: what the raw keys say, beside what the job's hash says, at one moment.
  KEYS[1] job            longshore:{J}
  KEYS[2] done           longshore:{J}:done
  KEYS[3] failed         longshore:{J}:failed
  KEYS[4] chunks         longshore:{J}:chunks
  KEYS[5] retry set      longshore:{J}:retry
  Output  {} if the job is absent | {{fields of the job}, {name, number, name, number, …}}
  Flags   no-writes ]]
local key, done, failed, open_chunks, retry = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
-- Looking for subtasks that are in two places is done one by one, so it has a bound.
local MOST_LOOKS = 10000

local it = job.load(key)
if not it then
  return {}
end
local total = job.num(it, 'total')
local nodes_to = total + job.num(it, 'reduce_total')
local counted = {
  done = bits.count(done, 0, total),
  failed = bits.count(failed, 0, total),
  reduce_done = bits.count(done, total, nodes_to),
  reduce_failed = bits.count(failed, total, nodes_to),
  queued = 0, running = 0, queued_chunks = 0, running_chunks = 0,
  retrying = redis.call('ZCARD', retry),
  settled_in_chunks = 0, outside_level = 0, overlapping = 0, done_and_failed = 0,
}
local level_from, level_to = job.num(it, 'level_from'), job.num(it, 'level_to')
local open = chunks.all(open_chunks)
for _, chunk in ipairs(open) do
  counted[chunk.state] = counted[chunk.state] + chunk.to - chunk.from
  counted[chunk.state .. '_chunks'] = counted[chunk.state .. '_chunks'] + 1
  counted.settled_in_chunks = counted.settled_in_chunks
    + bits.count(done, chunk.from, chunk.to) + bits.count(failed, chunk.from, chunk.to)
  if chunk.from < level_from or chunk.to > level_to then
    counted.outside_level = counted.outside_level + 1
  end
end
table.sort(open, function(a, b) return a.from < b.from end)
for i = 2, #open do
  if open[i].from < open[i - 1].to then
    counted.overlapping = counted.overlapping + 1
  end
end
local index = bits.next_set(failed, 0, nodes_to)
for _ = 1, MOST_LOOKS do
  if not index then
    break
  end
  counted.done_and_failed = counted.done_and_failed + redis.call('GETBIT', done, index)
  index = bits.next_set(failed, index + 1, nodes_to)
end
local cursor = job.num(it, 'cursor')
counted.not_done_from_cursor = math.max(0, level_to - cursor) - bits.count(done, cursor, level_to)

local answer = {}
for name, number in pairs(counted) do
  answer[#answer + 1] = name
  answer[#answer + 1] = number
end
return { redis.call('HGETALL', key), answer }
