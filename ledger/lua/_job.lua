--[[ _job: a job's hash, read once and written once.
  Fields are text in Redis; `num` reads one as a number (absent is 0). Changes collect in memory
  until `save`, so that an operation that turns out to be refused has written nothing. ]]

local job = {}

-- Milliseconds since 1970 on this server's clock.
function job.now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- A job with these fields, of which none needs saving. Fields are written in the order in which they were set, so that a new
-- job reads from what matters most to what matters least.
function job.of(key, fields)
  return { key = key, fields = fields, changed = {}, order = {}, dropped = {} }
end

-- The job, or nil if there is none.
function job.load(key)
  local flat = redis.call('HGETALL', key)
  if #flat == 0 then
    return nil
  end
  local fields = {}
  for i = 1, #flat, 2 do
    fields[flat[i]] = flat[i + 1]
  end
  return job.of(key, fields)
end

function job.num(it, name)
  return tonumber(it.fields[name]) or 0
end

-- Setting what is there already writes nothing.
function job.set(it, name, value)
  if tostring(it.fields[name]) == tostring(value) then
    return
  end
  it.fields[name] = value
  if not it.changed[name] then
    it.changed[name] = true
    it.order[#it.order + 1] = name
  end
  it.dropped[name] = nil
end

function job.add(it, name, amount)
  if amount ~= 0 then
    job.set(it, name, job.num(it, name) + amount)
  end
end

function job.drop(it, name)
  if it.fields[name] then
    it.fields[name] = nil
    it.changed[name] = nil
    it.dropped[name] = true
  end
end

function job.save(it)
  local changed, dropped = {}, {}
  for _, name in ipairs(it.order) do
    if it.changed[name] then
      changed[#changed + 1] = name
      changed[#changed + 1] = it.fields[name]
      it.changed[name] = nil
    end
  end
  for name in pairs(it.dropped) do
    dropped[#dropped + 1] = name
  end
  if #changed > 0 then
    redis.call('HSET', it.key, unpack(changed))
  end
  if #dropped > 0 then
    redis.call('HDEL', it.key, unpack(dropped))
  end
  it.changed, it.order, it.dropped = {}, {}, {}
end

function job.state(it)
  return it.fields.state
end

function job.has_ended(it)
  return ENDED[it.fields.state] == true
end

-- Where `event` leads by the table of transitions, or nil if it is not allowed.
function job.next(it, event)
  local to = NEXT[it.fields.state][event]
  if to == 'paused_from' then
    return it.fields.paused_from
  end
  return to
end

-- Tells whoever listens that the job is something else now. A hint; nobody depends on it.
function job.announce(channel, id, it)
  redis.call('PUBLISH', channel, cjson.encode({ event = 'job', job = id, state = job.state(it) }))
end

-- Tells whoever listens that the job's queue has room in its window, or something to publish.
function job.announce_room(channel, id)
  redis.call('PUBLISH', channel, cjson.encode({ event = 'room', job = id }))
end
