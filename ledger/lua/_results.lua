--[[ _results: runs of results in the hash `:results`, each under the index of its first subtask.
  A run is the lines themselves, or `@COUNT URL` for an object that holds COUNT lines (`URL#k`: from
  its line k on), or `~COUNT BYTES TEXT` for COUNT lines that the worker compressed (`~COUNT#k`:
  from line k of them on), see `src/redis/packing.rs`. Runs never cross a multiple of 256. ]]

local results = {}

-- Runs never cross a multiple of STRIDE, so the run of an index begins less than STRIDE before it.
-- MAX_STEPS bounds how long the server is busy with a job that keeps few results among many
-- subtasks.
local STRIDE, MAX_STEPS = 256, 1000

-- No job has more indices than a bitmap has bits; a larger number would lose digits on its way to a
-- caller.
results.MAX_INDEX = 2 ^ 41

-- The number of subtasks that a kept run covers.
function results.count(value)
  local count = string.match(value, '^[@~](%d+)')
  if count then
    return tonumber(count)
  end
  -- A search for plain text is as fast as memory; patterns take a thousand times as long.
  local lines, at = 0, string.find(value, '\n', 1, true)
  while at do
    lines, at = lines + 1, string.find(value, '\n', at + 1, true)
  end
  return math.max(1, lines)
end

-- The first index of the run that may cover this index. Reads no values, since results can be
-- large.
local function run_start(kept, index)
  for at = index, index - index % STRIDE, -1 do
    if redis.call('HEXISTS', kept, at) == 1 then
      return at
    end
  end
  return index
end

-- A kept run as callers get it.
function results.shown(value)
  local url = string.match(value, '^@%d+ (.*)$')
  return url and '@' .. url or value
end

-- The size of a run that callers get, in bytes, once it is unpacked.
function results.size(value)
  return tonumber(string.match(value, '^~%d+#?%d* (%d+) ')) or #value
end

-- Keeps the run of subtasks [from, to), none of which has a result yet, when the job is saved.
function results.keep(job, key, from, to, lines)
  if string.sub(lines, 1, 1) == '@' then
    lines = string.format('@%.0f %s', to - from, string.sub(lines, 2))
  end
  jobs.write(job, 'HSET', key, from, lines)
end

-- Keeps the results of those subtasks of [from, to) that are not done yet; `lines` are the results
-- from index `first` on. Called before the bits of the subtasks are set.
function results.keep_new(job, key, done, first, from, to, lines)
  local by_line, packed = {}, string.match(lines, '^~%d+( .*)$')
  if not packed and string.sub(lines, 1, 1) ~= '@' then
    for line in string.gmatch(lines, '[^\n]*\n') do
      by_line[#by_line + 1] = line
    end
  end
  local at = bitmap.next_clear(done, from, to)
  while at do
    local stop = bitmap.next_set(done, at, to) or to
    local part
    if packed then
      part = string.format('~%.0f#%.0f%s', stop - at, at - first, packed)
    elseif #by_line > 0 then
      part = table.concat(by_line, '', at - first + 1, math.min(stop - first, #by_line))
    else
      part = at == first and lines or string.format('%s#%.0f', lines, at - first)
    end
    results.keep(job, key, at, stop, part)
    at = bitmap.next_clear(done, stop, to)
  end
end

-- A page of the kept runs of [from, to) in index order, about `most` bytes:
-- {next, from, count, lines, from, count, lines, …}. The next page begins at `next`.
function results.page(kept, done, from, to, most)
  if from >= to or redis.call('EXISTS', kept) == 0 then
    return { to }
  end
  local answer, bytes, at = { to }, 0, run_start(kept, from)
  for _ = 1, MAX_STEPS do
    if at >= to then
      return answer
    end
    local run = redis.call('HGET', kept, at)
    if run then
      local count = results.count(run)
      if at + count > from then
        local shown = results.shown(run)
        for _, value in ipairs({ at, count, shown }) do
          answer[#answer + 1] = value
        end
        bytes = bytes + results.size(shown)
        if bytes >= most then
          answer[1] = math.min(at + count, to)
          return answer
        end
      end
      at = at + count
    else
      at = bitmap.next_set(done, at + 1, to) or to
    end
  end
  answer[1] = math.min(at, to)
  return answer
end
