--[[ release: hand back what the holder has not settled, whole or in parts.
  KEYS[1] job            longshore:{J}
  KEYS[2] chunks         longshore:{J}:chunks
  KEYS[3] due            longshore:{J}:due
  ARGV[1] events channel ARGV[2] job id   ARGV[3] chunk   ARGV[4] token (hex)
  ARGV[5] subtasks a part, or "" for no parts
  ARGV[6] most parts
  Output  {"queued"} | {"fenced"}
  Flags   allow-oom ]]
local key, open_chunks, due = KEYS[1], KEYS[2], KEYS[3]
local channel, id, chunk_id, token = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local wanted, most_parts = tonumber(ARGV[5]), tonumber(ARGV[6])

local it = job.load(key)
local chunk = it and chunks.load(open_chunks, chunk_id)
if not it or job.has_ended(it) or not chunks.holder_by(chunk, token) then
  return { 'fenced' }
end
-- Parts are for everybody, also where another node runs the chunk as well.
if not wanted and chunks.leave_to_the_other(chunk, chunks.holder_by(chunk, token)) then
  chunks.save(it, open_chunks, chunk)
  job.save(it)
  hints.room(channel, id)
  return { 'queued' }
end

local prefix, size, now = settle.level(it), chunk.to - chunk.from, job.now()
chunks.requeue(chunk, now)
local places, step = {}, wanted and math.max(wanted, math.ceil(size / most_parts)) or size
for place = chunk.from + step, chunk.to - 1, step do
  places[#places + 1] = place
end
local parts = chunks.cut(it, chunk, places)
for _, part in ipairs(parts) do
  chunks.queue(it, open_chunks, due, part)
end
job.add(it, 'queued_chunks', #parts)
job.add(it, 'running_chunks', -1)
job.add(it, prefix .. 'queued', size)
job.add(it, prefix .. 'running', -size)
poison.offer_again(it, open_chunks, due, poison.is_suspect(chunk), poison.is_over_parallel(it), now)
job.save(it)
hints.room(channel, id)
return { 'queued' }
