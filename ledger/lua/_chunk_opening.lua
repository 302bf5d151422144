--[[ _chunk_opening: cuts the next chunks of a job and queues them. ]]

local chunk_opening = {}

-- Most subtasks due for a retry that one call looks at.
local MOST_DUE = 1000

-- Opens at most `want` chunks of at most `size` subtasks: first subtasks that are due for a retry,
-- then subtasks that were never handed out. A chunk that is not claimed within `within` ms is
-- published again. Saves the job. Gives {chunk, from, to, epoch, chunk, from, to, epoch, …} in the
-- order opened.
function chunk_opening.open(job, keys, want, size, within)
  if not jobs.feeds(job) or size < 1 then
    return {}
  end
  local max_parallel = tonumber(job.fields.max_parallel)
  if max_parallel then
    want = math.min(want,
      max_parallel - jobs.num(job, 'queued_chunks') - jobs.num(job, 'running_chunks'))
  end
  if want < 1 then
    return {}
  end

  local now, prefix = jobs.now(), lifecycle.level(job)
  local next_chunk, opened, answer = jobs.num(job, 'next_chunk'), 0, {}
  local records = {}
  local function open_chunk(from, to, attempt, deferrals, tried)
    records[#records + 1] =
      chunks.new(next_chunk, from, to, attempt, deferrals, tried, now, now + within)
    local last = #answer
    answer[last + 1], answer[last + 2], answer[last + 3], answer[last + 4] = next_chunk, from, to, 1
    next_chunk, opened = next_chunk + 1, opened + 1
  end

  local waiting_again, taken = {}, {}
  local due = jobs.num(job, prefix .. 'retrying') > 0
    and redis.call('ZRANGEBYSCORE', keys.retry, '-inf', now, 'LIMIT', 0, MOST_DUE) or {}
  for _, member in ipairs(due) do
    local index, attempt, deferrals, tried =
      string.match(member, '^(%d+):(%d+):?(%d*):?(.*)$')
    local refunded
    tried, refunded = chunks.without_refunded(job, tried ~= '' and tried or '-')
    waiting_again[#waiting_again + 1] = {
      member = member, index = tonumber(index), attempt = math.max(1, tonumber(attempt) - refunded),
      deferrals = tonumber(deferrals) or 0, tried = tried,
    }
  end
  table.sort(waiting_again, function(a, b)
    if a.attempt ~= b.attempt then
      return a.attempt < b.attempt
    elseif a.deferrals ~= b.deferrals then
      return a.deferrals < b.deferrals
    end
    return a.index < b.index
  end)
  local at = 1
  while at <= #waiting_again and opened < want do
    local first = waiting_again[at]
    local length = 0
    repeat
      taken[#taken + 1] = waiting_again[at].member
      length, at = length + 1, at + 1
      local this = waiting_again[at]
    until not this or length >= size or this.index ~= first.index + length
      or this.attempt ~= first.attempt or this.deferrals ~= first.deferrals
      or this.tried ~= first.tried
    open_chunk(first.index, first.index + length, first.attempt, first.deferrals, first.tried)
  end
  local retried = #taken

  local cursor, level_to, fresh = jobs.num(job, 'cursor'), jobs.num(job, 'level_to'), 0
  local has_done = jobs.num(job, prefix .. 'done') > 0
  -- The next range of at most `most` indices that are not done.
  local function next_range(from, most)
    if not has_done then
      return from, math.min(from + most, level_to)
    end
    local start = bitmap.next_clear(keys.done, from, level_to) or level_to
    local stop = math.min(start + most, level_to)
    return start, bitmap.next_set(keys.done, start, stop) or stop
  end
  while opened < want and cursor < level_to do
    local stop
    cursor, stop = next_range(cursor, size * (want - opened))
    -- No `for` with `size` as its step: Lua would start with `cursor - size + size`, which is 0 for
    -- a large `size`.
    while cursor < stop do
      local to = math.min(cursor + size, stop)
      open_chunk(cursor, to, 1, 0, '-')
      fresh, cursor = fresh + to - cursor, to
    end
  end

  jobs.set(job, 'cursor', cursor)
  jobs.set(job, 'next_chunk', next_chunk)
  jobs.add(job, 'queued_chunks', opened)
  jobs.add(job, prefix .. 'queued', retried + fresh)
  jobs.add(job, prefix .. 'retrying', -retried)
  jobs.add(job, prefix .. 'waiting', -fresh)
  for _, chunk in ipairs(records) do
    chunks.queue(job, keys.chunks, keys.due, chunk)
  end
  jobs.save(job)
  if retried > 0 then
    redis.call('ZREM', keys.retry, unpack(taken))
  end
  return answer
end
