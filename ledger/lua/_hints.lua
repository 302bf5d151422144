--[[ _hints: publishes what changed. Hints get lost; nothing but speed depends on them.
  Every hint is published on the operation's channel, for programs of users. A listener is woken for
  each hint, so Longshore's own processes listen to channels that carry only what they need:
  CHANNEL:clients      what became of jobs, except that they run; of a job that a commit ended, how
  CHANNEL:schedulers   jobs for which a scheduler may have something to do
  CHANNEL:workers      jobs whose chunks have to stop ]]
local hints = {}

-- The hint of a job's end carries the results of jobs with at most this many indices, up to this
-- many bytes.
local MAX_INDICES, MAX_BYTES = 16, 4096

local function publish(message, channel, topics)
  redis.call('PUBLISH', channel, message)
  for _, topic in ipairs(topics) do
    redis.call('PUBLISH', channel .. ':' .. topic, message)
  end
end

local function change(id, job)
  return cjson.encode({ event = 'job', job = id, state = jobs.state(job) })
end

-- Whether a worker may still run a chunk of the job that has to stop. Once the job has succeeded,
-- that can only be work that another worker has done as well.
local function has_to_stop(job)
  if jobs.has_succeeded(job) then
    return jobs.num(job, 'speculative_chunks') > 0 or jobs.num(job, 'lost') > 0
  end
  return not jobs.feeds(job)
end

-- A job was accepted. `is_known`: the caller opened its first chunks, so schedulers need no hint.
function hints.admitted(channel, id, job, is_known)
  publish(change(id, job), channel, { 'clients', not is_known and 'schedulers' or nil })
end

-- A job was rejected.
function hints.rejected(channel, id, job)
  publish(change(id, job), channel, { 'clients' })
end

-- The first chunk of a job was claimed. Programs that show progress poll the job anyway.
function hints.started(channel, id, job)
  publish(change(id, job), channel, {})
end

-- A job was paused, resumed, re-opened, started its next level, or ended.
function hints.changed(channel, id, job)
  local workers = has_to_stop(job) and 'workers' or nil
  publish(change(id, job), channel, { 'schedulers', 'clients', workers })
end

-- A commit changed the state of a job, which was saved.
function hints.committed(channel, id, job, keys)
  if not jobs.has_ended(job) then
    return hints.changed(channel, id, job)
  end
  publish(change(id, job), channel, { 'schedulers', has_to_stop(job) and 'workers' or nil })
  local ended = { event = 'ended', job = id, fields = redis.call('HGETALL', keys.job) }
  if jobs.num(job, 'total') + jobs.num(job, 'reduce_total') <= MAX_INDICES then
    ended.results = results.page(keys.results, keys.done, 0, results.MAX_INDEX, MAX_BYTES)
  end
  redis.call('PUBLISH', channel .. ':clients', cjson.encode(ended))
end

-- The job's queue has free space in its window, or a chunk to publish.
function hints.room(channel, id)
  publish(cjson.encode({ event = 'room', job = id }), channel, { 'schedulers' })
end
