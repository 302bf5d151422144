--[[ results: kept runs in index order, a page at a time.
  KEYS[1] results        longshore:{J}:results
  KEYS[2] done           longshore:{J}:done
  ARGV[1] from           ARGV[2] to       ARGV[3] most bytes
  Output  {next, from, count, lines, from, count, lines, …}
  Flags   no-writes ]]
local kept, done = KEYS[1], KEYS[2]
local from, to, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
-- Runs never cross a multiple of STRIDE, so the walk can start at one. STEPS bounds how long the
-- server is busy with a job that keeps few results among many subtasks.
local STRIDE, STEPS = 256, 10000

if from >= to or redis.call('EXISTS', kept) == 0 then
  return { to }
end
local answer, bytes, at = { to }, 0, from - from % STRIDE
for _ = 1, STEPS do
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
    at = bits.next_set(done, at + 1, to) or to
  end
end
answer[1] = math.min(at, to)
return answer
