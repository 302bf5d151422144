--[[ _opening: the next chunks of a job. ]]

local opening = {}

-- Most subtasks that are due for a retry, looked at in one call.
local MOST_DUE = 1000

-- Opens at most `want` chunks of at most `size` subtasks, first of what is due for a retry, then of what was never handed out; they
-- are to be claimed within so many milliseconds. Saves the job. Gives {chunk, from, to, epoch, chunk, from, to, epoch, ...} in
-- the order opened.
function opening.open(it, keys, want, size, within)
  if job.has_ended(it) or job.state(it) == 'paused' or size < 1 then
    return {}
  end
  local max_parallel = tonumber(it.fields.max_parallel)
  if max_parallel then
    want = math.min(want,
      max_parallel - job.num(it, 'queued_chunks') - job.num(it, 'running_chunks'))
  end
  if want < 1 then
    return {}
  end

  local now, prefix = job.now(), settle.level(it)
  local next_chunk, opened, answer = job.num(it, 'next_chunk'), 0, {}
  local records = {}
  local function open_chunk(from, to, attempt, deferrals, tried)
    local chunk = {
      id = next_chunk, from = from, to = to, epoch = 1, token = '-', node = '-',
      state = 'queued', since = now, crashes = 0, attempt = attempt, deferrals = deferrals,
      due = now + within, recovery = 0, tried = tried, deaths = '-',
    }
    records[#records + 1] = chunk
    local last = #answer
    answer[last + 1], answer[last + 2], answer[last + 3], answer[last + 4] = next_chunk, from, to, 1
    next_chunk, opened = next_chunk + 1, opened + 1
  end

  local waiting_again, taken = {}, {}
  local due = job.num(it, prefix .. 'retrying') > 0
    and redis.call('ZRANGEBYSCORE', keys.retry, '-inf', now, 'LIMIT', 0, MOST_DUE) or {}
  for _, member in ipairs(due) do
    local index, attempt, deferrals, tried =
      string.match(member, '^(%d+):(%d+):?(%d*):?(.*)$')
    local wasted
    tried, wasted = chunks.absolve(it, tried ~= '' and tried or '-')
    waiting_again[#waiting_again + 1] = {
      member = member, index = tonumber(index), attempt = math.max(1, tonumber(attempt) - wasted),
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

  local cursor, level_to, fresh = job.num(it, 'cursor'), job.num(it, 'level_to'), 0
  local has_done = job.num(it, prefix .. 'done') > 0
  -- The next indices that are not done, so many at most.
  local function stretch(from, most)
    if not has_done then
      return from, math.min(from + most, level_to)
    end
    local start = bits.next_clear(keys.done, from, level_to) or level_to
    local stop = math.min(start + most, level_to)
    return start, bits.next_set(keys.done, start, stop) or stop
  end
  while opened < want and cursor < level_to do
    local stop
    cursor, stop = stretch(cursor, size * (want - opened))
    -- No `for` with `size` as its step: it would begin with `cursor - size + size`, which a large one makes 0.
    while cursor < stop do
      local to = math.min(cursor + size, stop)
      open_chunk(cursor, to, 1, 0, '-')
      fresh, cursor = fresh + to - cursor, to
    end
  end

  job.set(it, 'cursor', cursor)
  job.set(it, 'next_chunk', next_chunk)
  job.add(it, 'queued_chunks', opened)
  job.add(it, prefix .. 'queued', retried + fresh)
  job.add(it, prefix .. 'retrying', -retried)
  job.add(it, prefix .. 'waiting', -fresh)
  for _, chunk in ipairs(records) do
    chunks.queue(it, keys.chunks, keys.due, chunk)
  end
  job.save(it)
  if retried > 0 then
    redis.call('ZREM', keys.retry, unpack(taken))
  end
  return answer
end
