--[[ resume: go on with a paused job; its queued chunks are due at once, since their messages may
  have been dropped.
  KEYS[1] job            longshore:{J}
  KEYS[2] chunks         longshore:{J}:chunks
  KEYS[3] due            longshore:{J}:due
  ARGV[1] events channel ARGV[2] job id
  Output  {"now", state} | {"illegal", state} | {"absent"}
  Flags   allow-oom ]]
local key, open_chunks, due = KEYS[1], KEYS[2], KEYS[3]
local channel, id = ARGV[1], ARGV[2]

local it = job.load(key)
if not it then
  return { 'absent' }
end
local before = job.state(it)
local after = job.next(it, 'resume')
if not after then
  return { 'illegal', before }
end
if after ~= before then
  local now = job.now()
  job.set(it, 'state', after)
  job.drop(it, 'paused_from')
  for _, chunk in ipairs(chunks.queued(open_chunks)) do
    chunk.due = now
    chunks.queue(it, open_chunks, due, chunk)
  end
  job.save(it)
  hints.changed(channel, id, it)
end
return { 'now', after }
