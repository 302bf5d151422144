--[[ resume: continue a paused job; its queued chunks are due at once.
  Their messages may have been dropped.
  KEYS[1] job            longshore:{J}
  KEYS[2] chunks         longshore:{J}:chunks
  KEYS[3] due            longshore:{J}:due
  ARGV[1] events channel ARGV[2] job id
  Output  {"now", state} | {"illegal", state} | {"absent"}
  Flags   allow-oom ]]
local key, open_chunks, due = KEYS[1], KEYS[2], KEYS[3]
local channel, id = ARGV[1], ARGV[2]

local job = jobs.load(key)
if not job then
  return { 'absent' }
end
local before = jobs.state(job)
local after = jobs.next(job, 'resume')
if not after then
  return { 'illegal', before }
end
if after ~= before then
  local now = jobs.now()
  jobs.set(job, 'state', after)
  jobs.drop(job, 'paused_from')
  for _, chunk in ipairs(chunks.queued(open_chunks)) do
    chunk.due = now
    chunks.queue(job, open_chunks, due, chunk)
  end
  jobs.save(job)
  hints.changed(channel, id, job)
end
return { 'now', after }
