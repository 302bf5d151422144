--[[ _chunks: the record of an open chunk, one line under the chunk's number in `:chunks`:
    from,to,epoch,token,node,state,since,crashes,attempt,deferrals,due
  A queued chunk has no token and no node (`-`), a running one no due time (0). `since` is
  when it came into its state. ]]

local chunks = {}

local RECORD = '^(%d+),(%d+),(%d+),([^,]+),([^,]+),(%a+),(%d+),(%d+),(%d+),(%d+),(%d+)$'

function chunks.parse(id, text)
  local from, to, epoch, token, node, state, since, crashes, attempt, deferrals, due =
    string.match(text, RECORD)
  if not from then
    error('chunk ' .. id .. ' reads `' .. text .. '`')
  end
  return {
    id = tonumber(id),
    from = tonumber(from), to = tonumber(to), epoch = tonumber(epoch),
    token = token, node = node, state = state,
    since = tonumber(since), crashes = tonumber(crashes),
    attempt = tonumber(attempt), deferrals = tonumber(deferrals), due = tonumber(due),
  }
end

function chunks.text(it)
  return string.format('%.0f,%.0f,%.0f,%s,%s,%s,%.0f,%.0f,%.0f,%.0f,%.0f',
    it.from, it.to, it.epoch, it.token, it.node, it.state, it.since, it.crashes,
    it.attempt, it.deferrals, it.due)
end

-- The chunk, or nil if it is not open.
function chunks.load(key, id)
  local text = redis.call('HGET', key, id)
  return text and chunks.parse(id, text) or nil
end

-- All open chunks in order of their number.
function chunks.all(key)
  local flat, list = redis.call('HGETALL', key), {}
  for i = 1, #flat, 2 do
    list[#list + 1] = chunks.parse(flat[i], flat[i + 1])
  end
  table.sort(list, function(a, b) return a.id < b.id end)
  return list
end

function chunks.save(key, it)
  redis.call('HSET', key, it.id, chunks.text(it))
end

-- Whether this token holds the chunk now.
function chunks.is_held(it, token)
  return it ~= nil and it.state == 'running' and it.token == token
end

-- Takes the chunk from its holder: whatever the holder still sends is fenced.
function chunks.requeue(it, now)
  it.state, it.token, it.node = 'queued', '-', '-'
  it.epoch, it.since, it.due = it.epoch + 1, now, now
end
