--[[ offer_speculative: offer chunks that have been running for too long to a second node.
  KEYS[1] job            longshore:{J}
  KEYS[2] chunks         longshore:{J}:chunks
  ARGV[1] claimed at least so long ago, ms   ARGV[2] repeat an offer that nobody took after, ms
  ARGV[3] most chunks    ARGV[4] no chunk that this node holds (empty: no such node)
  Output  {chunk, from, to, epoch, holder, …}, held longest first ]]
local key, open_chunks = KEYS[1], KEYS[2]
local held_for, offer_for, limit = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local excluded = ARGV[4]

local job = jobs.load(key)
if not job or not jobs.feeds(job) or job.fields.max_parallel then
  return {}
end
local now, late = jobs.now(), {}
for _, chunk in ipairs(chunks.running_since(open_chunks, now - held_for)) do
  local second = chunk.second
  local may_be_offered = not second or second.offered and now - second.offered >= offer_for
  if may_be_offered and chunk.crashes == 0 and chunk.node ~= excluded then
    late[#late + 1] = chunk
  end
end
table.sort(late, function(a, b)
  return a.since < b.since or a.since == b.since and a.id < b.id
end)
local answer = {}
for i = 1, math.min(limit, #late) do
  local chunk = late[i]
  chunk.second, chunk.epoch = { offered = now }, chunk.epoch + 1
  chunks.save(job, open_chunks, chunk)
  for _, value in ipairs({ chunk.id, chunk.from, chunk.to, chunk.epoch, chunk.node }) do
    answer[#answer + 1] = value
  end
end
jobs.save(job)
return answer
