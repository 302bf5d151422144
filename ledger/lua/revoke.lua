--[[ revoke: take away everything that a node holds of the job.
  KEYS[1] job            longshore:{J}
  KEYS[2] chunks         longshore:{J}:chunks
  ARGV[1] events channel ARGV[2] job id   ARGV[3] node   ARGV[4] "died" | "left"
  Output  {chunk, from, to, epoch, …} in order of chunk
  Flags   allow-oom ]]
local key, open_chunks = KEYS[1], KEYS[2]
local channel, id, node, died = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == 'died'

local it = job.load(key)
if not it or job.has_ended(it) then
  return {}
end
local now, prefix, answer = job.now(), settle.level(it), {}
for _, chunk in ipairs(chunks.all(open_chunks)) do
  if chunk.state == 'running' and chunk.node == node then
    local size = chunk.to - chunk.from
    chunks.requeue(chunk, now)
    chunk.crashes = chunk.crashes + (died and 1 or 0)
    job.add(it, 'queued_chunks', 1)
    job.add(it, 'running_chunks', -1)
    job.add(it, prefix .. 'queued', size)
    job.add(it, prefix .. 'running', -size)
    job.add(it, 'lost', size)
    chunks.save(open_chunks, chunk)
    for _, value in ipairs({ chunk.id, chunk.from, chunk.to, chunk.epoch }) do
      answer[#answer + 1] = value
    end
  end
end
job.save(it)
if #answer > 0 then
  job.announce_room(channel, id)
end
return answer
