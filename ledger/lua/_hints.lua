--[[ _hints: telling who listens that something is else now. Hints get lost; nothing depends on them but speed.
  All are published on the operation's channel, for whoever wants to know. Since a listener has to be woken for
  each, ours listen to channels with what concerns them alone:
  CHANNEL:clients      what became of jobs, but not that they run; of one that a commit ended, how
  CHANNEL:schedulers   what may be to do for them
  CHANNEL:workers      what has to stop ]]
local hints = {}

-- Of a job with so many results at most, they go with the news of its end, up to so many bytes.
local FEW, SHORT = 16, 4096

local function tell(message, channel, audiences)
  redis.call('PUBLISH', channel, message)
  for _, audience in ipairs(audiences) do
    redis.call('PUBLISH', channel .. ':' .. audience, message)
  end
end

local function change(id, it)
  return cjson.encode({ event = 'job', job = id, state = job.state(it) })
end

-- Whether somebody may still run something of the job that is not to go on. Of one that succeeded that can only be what another
-- has done as well.
local function has_to_stop(it)
  local state = job.state(it)
  if state == 'succeeded' then
    return job.num(it, 'copies') > 0 or job.num(it, 'lost') > 0
  end
  return state == 'paused' or ENDED[state]
end

-- A job was taken in, by a scheduler that knows of it (`is_known`) or by one that tells whom it concerns.
function hints.admitted(channel, id, it, is_known)
  tell(change(id, it), channel, { 'clients', not is_known and 'schedulers' or nil })
end

-- A job could not be taken in.
function hints.rejected(channel, id, it)
  tell(change(id, it), channel, { 'clients' })
end

-- The first chunk of a job was claimed. Whoever shows progress looks at it anyway.
function hints.started(channel, id, it)
  tell(change(id, it), channel, {})
end

-- A job was paused, resumed, re-opened, went on to its next level, or ended.
function hints.changed(channel, id, it)
  tell(change(id, it), channel, { 'schedulers', 'clients', has_to_stop(it) and 'workers' or nil })
end

-- What a commit made of a job, which was saved.
function hints.committed(channel, id, it, keys)
  if not job.has_ended(it) then
    return hints.changed(channel, id, it)
  end
  tell(change(id, it), channel, { 'schedulers', has_to_stop(it) and 'workers' or nil })
  local end_of = { event = 'ended', job = id, fields = redis.call('HGETALL', keys.job) }
  if job.num(it, 'total') + job.num(it, 'reduce_total') <= FEW then
    end_of.results = results.page(keys.results, keys.done, 0, results.MOST, SHORT)
  end
  redis.call('PUBLISH', channel .. ':clients', cjson.encode(end_of))
end

-- The job's queue has room in its window, or something to publish.
function hints.room(channel, id)
  tell(cjson.encode({ event = 'room', job = id }), channel, { 'schedulers' })
end
