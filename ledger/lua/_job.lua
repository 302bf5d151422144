--[[ _job: a job's hash, read once and written once, and what is written beside it.
  Fields are text until `num` has read one as a number (absent is 0). Changes, and writes to the
  job's other keys, collect in memory until `save`, so that an operation that turns out to be refused
  has written nothing, and one that does a thing many times asks Redis once. ]]

local job = {}

-- Most values in one command: what Lua can hand over is limited. An even number, so that pairs stay together.
local MOST_VALUES = 4000

-- Times that differ by more than this do not agree: somebody's clock jumped.
local TOLERANCE_MS = 10000

-- The ledger's time as the caller of the function knows it, or nil.
local told

-- Takes the caller's time off its arguments, where it is the last one. Each function begins so.
function job.take_time(arguments)
  local last = arguments[#arguments]
  local time = last and string.match(last, '^now:(%d*)$')
  told = tonumber(time)
  if time then
    arguments[#arguments] = nil
  end
end

-- Milliseconds since 1970 on this server's clock.
function job.server_time()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The ledger's time, ms: that of this server, and where the two do not agree that of the caller,
-- which does not jump.
function job.now()
  local time = job.server_time()
  if told and math.abs(time - told) > TOLERANCE_MS then
    return told
  end
  return time
end

-- A job with these fields, of which none needs saving. Fields are written in the order in which they were set, so that a new
-- job reads from what matters most to what matters least.
function job.of(key, fields)
  return { key = key, fields = fields, changed = {}, order = {}, dropped = {}, writes = {} }
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
  local value = it.fields[name]
  if type(value) == 'number' then
    return value
  end
  value = tonumber(value)
  if not value then
    return 0
  end
  it.fields[name] = value
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

-- Sets it, whatever it was.
function job.put(it, name, value)
  it.fields[name] = value
  if not it.changed[name] then
    it.changed[name] = true
    it.order[#it.order + 1] = name
    -- To set what is not there to nil would make room for it.
    if it.dropped[name] then
      it.dropped[name] = nil
    end
  end
end

-- Setting what is there already writes nothing.
function job.set(it, name, value)
  if not is_same(it.fields[name], value) then
    job.put(it, name, value)
  end
end

function job.add(it, name, amount)
  if amount ~= 0 then
    job.put(it, name, job.num(it, name) + amount)
  end
end

function job.drop(it, name)
  if it.fields[name] then
    it.fields[name] = nil
    it.changed[name] = nil
    it.dropped[name] = true
  end
end

-- A write to another key of the job, when the job is saved: values of one command and one key go together, commands in the
-- order in which they were first asked for. Whoever reads such a key meanwhile saves first.
function job.write(it, command, key, value, second)
  local writes, write = it.writes, nil
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

function job.save(it)
  if #it.order + #it.writes == 0 and not next(it.dropped) then
    return
  end
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
  write_all(it.writes)
  it.changed, it.order, it.dropped, it.writes = {}, {}, {}, {}
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
