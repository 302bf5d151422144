--[[ open: cut and queue the next chunks: subtasks due for a retry first, then new subtasks.
  KEYS[1] job            longshore:{J}
  KEYS[2] done           longshore:{J}:done
  KEYS[3] chunks         longshore:{J}:chunks
  KEYS[4] retry set      longshore:{J}:retry
  KEYS[5] due            longshore:{J}:due
  ARGV[1] most chunks    ARGV[2] most subtasks each   ARGV[3] publish within, ms
  Output  {chunk, from, to, epoch, chunk, from, to, epoch, …} in the order opened ]]
local key = KEYS[1]
local keys = { done = KEYS[2], chunks = KEYS[3], retry = KEYS[4], due = KEYS[5] }
local most_chunks, most_subtasks, within = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

local job = jobs.load(key)
if not job then
  return {}
end
return chunk_opening.open(job, keys, most_chunks, most_subtasks, within)
