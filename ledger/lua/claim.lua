--[[ claim: give queued chunks of a job to the workers that received their messages.
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

local job, ids = jobs.load(key), {}
for i = 3, #ARGV, 4 do
  ids[#ids + 1] = ARGV[i]
end
local open, now = job and chunks.load_all(open_chunks, ids), jobs.now()
local before = job and jobs.state(job)

local function granted(chunk)
  return { 'granted', chunk.from, chunk.to, chunk.attempt, chunk.deferrals, chunk.crashes,
    job.fields.digest, chunk.tried }
end

local function claim(chunk_id, epoch, token, node)
  if node == '' or string.find(node, '[,%s]') then
    return { 'misuse', 'a node has a name without commas and spaces' }
  end
  if not job or not jobs.was_accepted(job) then
    return { 'gone' }
  end
  local chunk = open[chunk_id]
  if chunks.holder_by(chunk, token) then
    return granted(chunk)
  end
  if not chunk or not jobs.accepts_claims(job) then
    return { 'gone' }
  end
  local second = chunk.second
  if second and second.offered and chunk.epoch == epoch and chunk.node ~= node then
    chunk.second = { token = token, node = node, since = now }
    jobs.add(job, 'speculative_chunks', 1)
    chunks.save(job, open_chunks, chunk)
    return granted(chunk)
  end
  if not chunks.is_queued(chunk) or chunk.epoch ~= epoch then
    return { 'stale', chunks.is_running(chunk) and chunk.node or '' }
  end
  if not poison.may_run(job, open_chunks, chunk, node) then
    return { 'gone' }
  end
  local prefix, size = lifecycle.level(job), chunk.to - chunk.from
  chunks.grant(chunk, token, node, now)
  recoveries.claimed(recovered, chunk, now)
  jobs.set(job, 'state', jobs.next(job, 'start'))
  if not job.fields.started_at then
    jobs.set(job, 'started_at', now)
  end
  jobs.add(job, 'queued_chunks', -1)
  jobs.add(job, 'running_chunks', 1)
  jobs.add(job, prefix .. 'queued', -size)
  jobs.add(job, prefix .. 'running', size)
  chunks.save(job, open_chunks, chunk)
  jobs.write(job, 'ZREM', due, chunk_id)
  return granted(chunk)
end

local answers = {}
for i = 3, #ARGV, 4 do
  answers[#answers + 1] = claim(ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2], ARGV[i + 3])
end
if job then
  jobs.save(job)
  if jobs.state(job) ~= before then
    hints.started(channel, id, job)
  end
end
return answers
