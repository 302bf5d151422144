--[[ release: queue what is left of a chunk again, whole or in parts, at its holder's request.
  KEYS[1] job            longshore:{J}
  KEYS[2] chunks         longshore:{J}:chunks
  KEYS[3] due            longshore:{J}:due
  ARGV[1] events channel ARGV[2] job id   ARGV[3] chunk   ARGV[4] token (hex)
  ARGV[5] subtasks in each part, or "" for no parts
  ARGV[6] most parts
  Output  {"queued"} | {"fenced"}
  Flags   allow-oom ]]
local key, open_chunks, due = KEYS[1], KEYS[2], KEYS[3]
local channel, id, chunk_id, token = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local wanted, most_parts = tonumber(ARGV[5]), tonumber(ARGV[6])

local job = jobs.load(key)
local chunk = job and chunks.load(open_chunks, chunk_id)
if not job or jobs.has_ended(job) or not chunks.holder_by(chunk, token) then
  return { 'fenced' }
end
-- Any node may claim parts, so they are queued even where another node holds the chunk as well.
if not wanted and chunks.leave_to_other_holder(chunk, chunks.holder_by(chunk, token)) then
  chunks.save(job, open_chunks, chunk)
  jobs.save(job)
  hints.room(channel, id)
  return { 'queued' }
end

local prefix, size, now = lifecycle.level(job), chunk.to - chunk.from, jobs.now()
chunks.requeue(chunk, now)
local places, step = {}, wanted and math.max(wanted, math.ceil(size / most_parts)) or size
for place = chunk.from + step, chunk.to - 1, step do
  places[#places + 1] = place
end
local parts = chunks.cut(job, chunk, places)
for _, part in ipairs(parts) do
  chunks.queue(job, open_chunks, due, part)
end
jobs.add(job, 'queued_chunks', #parts)
jobs.add(job, 'running_chunks', -1)
jobs.add(job, prefix .. 'queued', size)
jobs.add(job, prefix .. 'running', -size)
poison.make_refused_due(job, open_chunks, due, poison.is_suspect(chunk),
  poison.is_over_parallel(job), now)
jobs.save(job)
hints.room(channel, id)
return { 'queued' }
