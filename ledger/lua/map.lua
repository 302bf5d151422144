--[[ map: count the states of a job's subtasks for equal ranges of their indices.
  KEYS[1] job            longshore:{J}
  KEYS[2] done           longshore:{J}:done
  KEYS[3] failed         longshore:{J}:failed
  KEYS[4] chunks         longshore:{J}:chunks
  KEYS[5] retry set      longshore:{J}:retry
  ARGV[1] first index    ARGV[2] the index behind the last one, `total` at most
  ARGV[3] number of ranges
  Output  {"absent"} | {"map", waiting, queued, running, retrying, done, failed, cancelled, …}: the
          seven numbers of each range
  Flags   no-writes ]]
local key, done, failed, open_chunks, retry = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local from, to, cells = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

local job = jobs.load(key)
if not job then
  return { 'absent' }
end
local waits_from = jobs.num(job, 'cursor')
if jobs.has_ended(job) or jobs.num(job, 'level_from') >= jobs.num(job, 'total') then
  waits_from = to
end
local function edge(cell)
  return from + math.floor(cell * (to - from) / cells)
end
-- The range of an index: an estimate, corrected by at most one.
local function cell_of(index)
  local cell = math.floor((index - from) * cells / (to - from))
  while edge(cell + 1) <= index do
    cell = cell + 1
  end
  while edge(cell) > index do
    cell = cell - 1
  end
  return cell
end

-- Most jobs have no failed subtask, so half of the bits need not be counted.
local function count(bits, name, first, last)
  return jobs.num(job, name) > 0 and bitmap.count(bits, first, last) or 0
end

local counted = {}
for cell = 0, cells - 1 do
  local first, last = edge(cell), edge(cell + 1)
  local waiting_from = math.min(math.max(waits_from, first), last)
  local is_done = count(done, 'done', first, last)
  -- What the range has from the cursor on waits, unless an earlier generation has done it.
  local done_again = waiting_from > first and count(done, 'done', waiting_from, last) or is_done
  counted[cell] = {
    waiting = last - waiting_from - (waiting_from < last and done_again or 0),
    queued = 0, running = 0, retrying = 0,
    done = is_done, failed = count(failed, 'failed', first, last), cancelled = 0,
  }
end
local flat = cells > 0 and redis.call('HGETALL', open_chunks) or {}
for i = 2, #flat, 2 do
  local first, last, state = chunks.extent(flat[i])
  first, last = math.max(first, from), math.min(last, to)
  while first < last do
    local cell = cell_of(first)
    local part = math.min(last, edge(cell + 1)) - first
    counted[cell][state] = counted[cell][state] + part
    first = first + part
  end
end
-- The rest waits for its next attempt, or was cancelled by the end of the job. Only a job that was
-- re-opened for some subtasks has both; these subtasks are few.
local rest = 'retrying'
if jobs.num(job, 'retrying') == 0 then
  rest = 'cancelled'
elseif jobs.num(job, 'cancelled') > 0 and cells > 0 then
  rest = 'cancelled'
  for _, member in ipairs(redis.call('ZRANGE', retry, 0, -1)) do
    local index = tonumber(string.match(member, '^%d+'))
    if index >= from and index < to then
      local cell = counted[cell_of(index)]
      cell.retrying = cell.retrying + 1
    end
  end
end
local STATES = { 'waiting', 'queued', 'running', 'retrying', 'done', 'failed', 'cancelled' }
local answer = { 'map' }
for cell = 0, cells - 1 do
  local counts, sum = counted[cell], 0
  for _, state in ipairs(STATES) do
    sum = sum + counts[state]
  end
  counts[rest] = counts[rest] + math.max(0, edge(cell + 1) - edge(cell) - sum)
  for _, state in ipairs(STATES) do
    answer[#answer + 1] = counts[state]
  end
end
return answer
