--[[ claim: give a queued chunk to the worker that got its message.
  KEYS[1] job            longshore:{J}
  KEYS[2] chunks         longshore:{J}:chunks
  ARGV[1] events channel ARGV[2] job id
  ARGV[3] chunk          ARGV[4] epoch    ARGV[5] token (hex)   ARGV[6] node
  Output  {"granted", from, to, attempt, deferrals, digest} | {"stale"} | {"gone"} ]]
local key, open_chunks = KEYS[1], KEYS[2]
local channel, id = ARGV[1], ARGV[2]
local chunk_id, epoch, token, node = ARGV[3], tonumber(ARGV[4]), ARGV[5], ARGV[6]

if node == '' or string.find(node, '[,%s]') then
  return redis.error_reply('MISUSE a node has a name without commas and spaces')
end
local it = job.load(key)
if not it then
  return { 'gone' }
end
local chunk = chunks.load(open_chunks, chunk_id)
local function granted()
  return { 'granted', chunk.from, chunk.to, chunk.attempt, chunk.deferrals, it.fields.digest }
end
if chunks.is_held(chunk, token) then
  return granted()
end
if not chunk or job.has_ended(it) or job.state(it) == 'paused' then
  return { 'gone' }
end
if chunk.state ~= 'queued' or chunk.epoch ~= epoch then
  return { 'stale' }
end

local now, prefix, before = job.now(), settle.level(it), job.state(it)
local size = chunk.to - chunk.from
chunk.state, chunk.token, chunk.node = 'running', token, node
chunk.since, chunk.due = now, 0
local after = job.next(it, 'start')
if after ~= before then
  job.set(it, 'state', after)
end
if not it.fields.started_at then
  job.set(it, 'started_at', now)
end
job.add(it, 'queued_chunks', -1)
job.add(it, 'running_chunks', 1)
job.add(it, prefix .. 'queued', -size)
job.add(it, prefix .. 'running', size)
job.save(it)
chunks.save(open_chunks, chunk)
if after ~= before then
  job.announce(channel, id, it)
end
return granted()
