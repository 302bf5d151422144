--[[ copy: offer to a second node what the first has been running for too long.
  KEYS[1] job            longshore:{J}
  KEYS[2] chunks         longshore:{J}:chunks
  ARGV[1] claimed so long ago, ms        ARGV[2] an offer that nobody took is made anew after, ms
  ARGV[3] most chunks    ARGV[4] none that this node holds, or ""
  Output  {chunk, from, to, epoch, holder, …}, held longest first ]]
local key, open_chunks = KEYS[1], KEYS[2]
local held_for, offer_for, limit = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local only = ARGV[4]

local it = job.load(key)
if not it or job.has_ended(it) or job.state(it) == 'paused' or it.fields.max_parallel then
  return {}
end
local now, late = job.now(), {}
for _, chunk in ipairs(chunks.running_since(open_chunks, now - held_for)) do
  local copy = chunk.copy
  local is_free = not copy or copy.offered and now - copy.offered >= offer_for
  if is_free and chunk.crashes == 0 and chunk.node ~= only then
    late[#late + 1] = chunk
  end
end
table.sort(late, function(a, b)
  return a.since < b.since or a.since == b.since and a.id < b.id
end)
local answer = {}
for i = 1, math.min(limit, #late) do
  local chunk = late[i]
  chunk.copy, chunk.epoch = { offered = now }, chunk.epoch + 1
  chunks.save(it, open_chunks, chunk)
  for _, value in ipairs({ chunk.id, chunk.from, chunk.to, chunk.epoch, chunk.node }) do
    answer[#answer + 1] = value
  end
end
job.save(it)
return answer
