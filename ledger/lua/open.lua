--[[ open: cut the next chunks from what is due for a retry, then from what was never handed out.
  KEYS[1] job            longshore:{J}
  KEYS[2] done           longshore:{J}:done
  KEYS[3] chunks         longshore:{J}:chunks
  KEYS[4] retry set      longshore:{J}:retry
  KEYS[5] due            longshore:{J}:due
  ARGV[1] most chunks    ARGV[2] most subtasks each   ARGV[3] publish within, ms
  Output  {chunk, from, to, epoch, chunk, from, to, epoch, …} in the order opened ]]
local it = job.load(KEYS[1])
if not it then
  return {}
end
local keys = { done = KEYS[2], chunks = KEYS[3], retry = KEYS[4], due = KEYS[5] }
return opening.open(it, keys, tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]))
