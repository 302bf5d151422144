--[[ claim: give queued chunks of a job to the workers that got their messages.
  KEYS[1] job            longshore:{J}
  KEYS[2] chunks         longshore:{J}:chunks
  KEYS[3] recoveries     longshore:{J}:recoveries
  KEYS[4] due            longshore:{J}:due
  ARGV[1] events channel ARGV[2] job id
  ARGV[3…] chunk, epoch, token (hex), node, for each claim
  Output  one answer a claim, in their order:
          {"granted", from, to, attempt, deferrals, crashes, digest, tried} |
          {"stale", holder or ""} | {"gone"} | {"misuse", why} ]]
local key, open_chunks, recovered, due = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local channel, id = ARGV[1], ARGV[2]

local it, ids = job.load(key), {}
for i = 3, #ARGV, 4 do
  ids[#ids + 1] = ARGV[i]
end
local open, now = it and chunks.load_all(open_chunks, ids), job.now()
local before = it and job.state(it)

local function granted(chunk)
  return { 'granted', chunk.from, chunk.to, chunk.attempt, chunk.deferrals, chunk.crashes,
    it.fields.digest, chunk.tried }
end

local function claim(chunk_id, epoch, token, node)
  if node == '' or string.find(node, '[,%s]') then
    return { 'misuse', 'a node has a name without commas and spaces' }
  end
  if not it or job.state(it) == 'rejected' then
    return { 'gone' }
  end
  local chunk = open[chunk_id]
  if chunks.holder_by(chunk, token) then
    return granted(chunk)
  end
  if not chunk or job.has_ended(it) or job.state(it) == 'paused' then
    return { 'gone' }
  end
  if chunk.copy and chunk.copy.offered and chunk.epoch == epoch and chunk.node ~= node then
    chunk.copy = { token = token, node = node, since = now }
    job.add(it, 'copies', 1)
    chunks.save(it, open_chunks, chunk)
    return granted(chunk)
  end
  if chunk.state ~= 'queued' or chunk.epoch ~= epoch then
    return { 'stale', chunk.state == 'running' and chunk.node or '' }
  end
  if not poison.has_room_for(it, open_chunks, chunk, node) then
    return { 'gone' }
  end
  local prefix, size = settle.level(it), chunk.to - chunk.from
  chunk.state, chunk.token, chunk.node = 'running', token, node
  chunk.since, chunk.due = now, 0
  recoveries.claimed(recovered, chunk, now)
  job.set(it, 'state', job.next(it, 'start'))
  if not it.fields.started_at then
    job.set(it, 'started_at', now)
  end
  job.add(it, 'queued_chunks', -1)
  job.add(it, 'running_chunks', 1)
  job.add(it, prefix .. 'queued', -size)
  job.add(it, prefix .. 'running', size)
  chunks.save(it, open_chunks, chunk)
  job.write(it, 'ZREM', due, chunk_id)
  return granted(chunk)
end

local answers = {}
for i = 3, #ARGV, 4 do
  answers[#answers + 1] = claim(ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2], ARGV[i + 3])
end
if it then
  job.save(it)
  if job.state(it) ~= before then
    hints.started(channel, id, it)
  end
end
return answers
