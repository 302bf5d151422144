--[[ release: hand back what the holder has not settled.
  KEYS[1] job            longshore:{J}
  KEYS[2] chunks         longshore:{J}:chunks
  ARGV[1] events channel ARGV[2] job id   ARGV[3] chunk   ARGV[4] token (hex)
  Output  {"queued"} | {"fenced"}
  Flags   allow-oom ]]
local key, open_chunks = KEYS[1], KEYS[2]
local channel, id, chunk_id, token = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local it = job.load(key)
local chunk = it and chunks.load(open_chunks, chunk_id)
if not it or job.has_ended(it) or not chunks.is_held(chunk, token) then
  return { 'fenced' }
end

local prefix, size = settle.level(it), chunk.to - chunk.from
chunks.requeue(chunk, job.now())
job.add(it, 'queued_chunks', 1)
job.add(it, 'running_chunks', -1)
job.add(it, prefix .. 'queued', size)
job.add(it, prefix .. 'running', -size)
job.save(it)
chunks.save(open_chunks, chunk)
job.announce_room(channel, id)
return { 'queued' }
