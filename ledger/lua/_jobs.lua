--[[ _jobs: a job's hash, read once and written once, and the writes to the job's other keys.
  Fields are text until `num` has read one as a number (absent is 0). Changes, and writes to the
  job's other keys, collect in memory until `save`: an operation that turns out to be refused has
  written nothing, and an operation that does the same thing many times sends one command. ]]

local jobs = {}

-- Most values in one command, since Lua limits the arguments of a call. An even number, so that
-- pairs stay together.
local MOST_VALUES = 4000

-- Times that differ by more than this do not agree: a clock jumped.
local TOLERANCE_MS = 10000

-- The ledger's time as the caller of the function knows it, or nil.
local callers_time

-- Removes the caller's time from the arguments, where it is the last one. Every function calls this
-- first.
function jobs.take_time(arguments)
  local last = arguments[#arguments]
  local time = last and string.match(last, '^now:(%d*)$')
  callers_time = tonumber(time)
  if time then
    arguments[#arguments] = nil
  end
end

-- Milliseconds since 1970 on this server's clock.
function jobs.server_time()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The ledger's time, ms: the time of this server, or, where the two do not agree, the time of the
-- caller, which does not jump.
function jobs.now()
  local time = jobs.server_time()
  if callers_time and math.abs(time - callers_time) > TOLERANCE_MS then
    return callers_time
  end
  return time
end

-- A job with these fields, none of which needs saving. Fields are written in the order in which
-- they were set, so that the hash of a new job lists the most important fields first.
function jobs.of(key, fields)
  return { key = key, fields = fields, changed = {}, order = {}, dropped = {}, writes = {} }
end

-- The job, or nil if there is none.
function jobs.load(key)
  local flat = redis.call('HGETALL', key)
  if #flat == 0 then
    return nil
  end
  local fields = {}
  for i = 1, #flat, 2 do
    fields[flat[i]] = flat[i + 1]
  end
  return jobs.of(key, fields)
end

function jobs.num(job, name)
  local value = job.fields[name]
  if type(value) == 'number' then
    return value
  end
  value = tonumber(value)
  if not value then
    return 0
  end
  job.fields[name] = value
  return value
end

-- A number that is absent is 0.
local function is_same(old, value)
  if type(old) == type(value) then
    return old == value
  elseif old == nil then
    return value == 0
  end
  return tonumber(old) == tonumber(value)
end

-- Sets a field, whatever its value was.
function jobs.put(job, name, value)
  job.fields[name] = value
  if not job.changed[name] then
    job.changed[name] = true
    job.order[#job.order + 1] = name
    -- Assigning nil to an absent entry would allocate memory for it.
    if job.dropped[name] then
      job.dropped[name] = nil
    end
  end
end

-- Sets a field; writes nothing if it has this value already.
function jobs.set(job, name, value)
  if not is_same(job.fields[name], value) then
    jobs.put(job, name, value)
  end
end

function jobs.add(job, name, amount)
  if amount ~= 0 then
    jobs.put(job, name, jobs.num(job, name) + amount)
  end
end

function jobs.drop(job, name)
  if job.fields[name] then
    job.fields[name] = nil
    job.changed[name] = nil
    job.dropped[name] = true
  end
end

-- Writes to another key of the job, when the job is saved. The values of one command and one key
-- are sent together, the commands in the order in which they were first asked for. Code that reads
-- such a key before then must save first.
function jobs.write(job, command, key, value, second)
  local writes, write = job.writes, nil
  for i = 1, #writes do
    if writes[i].command == command and writes[i].key == key then
      write = writes[i]
    end
  end
  if not write then
    write = { command = command, key = key, count = 0 }
    writes[#writes + 1] = write
  end
  local count = write.count + 1
  write[count] = value
  if second then
    count = count + 1
    write[count] = second
  end
  write.count = count
end

local function write_all(writes)
  for _, write in ipairs(writes) do
    for first = 1, write.count, MOST_VALUES do
      redis.call(write.command, write.key,
        unpack(write, first, math.min(first + MOST_VALUES - 1, write.count)))
    end
  end
end

function jobs.save(job)
  if #job.order + #job.writes == 0 and not next(job.dropped) then
    return
  end
  local changed, dropped = {}, {}
  for _, name in ipairs(job.order) do
    if job.changed[name] then
      changed[#changed + 1] = name
      changed[#changed + 1] = job.fields[name]
      job.changed[name] = nil
    end
  end
  for name in pairs(job.dropped) do
    dropped[#dropped + 1] = name
  end
  if #changed > 0 then
    redis.call('HSET', job.key, unpack(changed))
  end
  if #dropped > 0 then
    redis.call('HDEL', job.key, unpack(dropped))
  end
  write_all(job.writes)
  job.changed, job.order, job.dropped, job.writes = {}, {}, {}, {}
end

function jobs.state(job)
  return job.fields.state
end

-- What the job's state allows. The tables are generated from the predicates of `JobState`.
function jobs.has_ended(job)
  return TERMINAL[job.fields.state] == true
end

function jobs.has_succeeded(job)
  return SUCCEEDED[job.fields.state] == true
end

function jobs.was_accepted(job)
  return ACCEPTED[job.fields.state] == true
end

function jobs.feeds(job)
  return FEEDS[job.fields.state] == true
end

function jobs.accepts_claims(job)
  return ACCEPTS_CLAIMS[job.fields.state] == true
end

function jobs.is_in_progress(job)
  return IN_PROGRESS[job.fields.state] == true
end

-- The state that `event` leads to by the table of transitions, or nil if the event is not allowed.
function jobs.next(job, event)
  local to = NEXT[job.fields.state][event]
  if to == 'paused_from' then
    return job.fields.paused_from
  end
  return to
end
