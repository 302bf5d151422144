--[[ _chunks: the record of an open chunk, one line under the chunk's number in `:chunks`:
    from,to,epoch,token,node,state,since,crashes,attempt,deferrals,due,recovery,tried,deaths[,copy]
  A queued chunk has no token and no node (`-`), a running one no due time (0). `since` is
  when it came into its state. `recovery` is the number of the recovery that queued it, until it
  is claimed (else 0). `tried` names the nodes on which attempts at all of its subtasks failed,
  oldest first, between spaces (`-`: none), once for each attempt; the newest 8. `deaths` is the evidence against it, oldest first: for each of the
  `crashes` nodes that died while they held it `node at among how`, between spaces (`-`: none;
  `how` is what the system said of it, quoted as in URLs, or `-`).
  `copy` is there while a second node may run, or runs, what is left of a running chunk: `offered at`, or
  `token node since` of the second holder.
  The sorted set `:due` has the queued chunks by their due time, so that a sweep need not go through all. ]]

local chunks = {}

local RECORD = '^(%d+),(%d+),(%d+),([^,]+),([^,]+),(%a+),(%d+),(%d+),(%d+),(%d+),(%d+),(%d+),'
  .. '([^,]+),([^,]+),?([^,]*)$'

-- So many failed attempts of a subtask are remembered with their nodes.
local MOST_TRIED = 8

local function parse_copy(text)
  local at = string.match(text, '^offered (%d+)$')
  if at then
    return { offered = tonumber(at) }
  end
  local token, node, since = string.match(text, '^(%x+) ([^ ]+) (%d+)$')
  return token and { token = token, node = node, since = tonumber(since) }
end

local function copy_text(it)
  if not it then
    return ''
  elseif it.offered then
    return string.format(',offered %.0f', it.offered)
  end
  return string.format(',%s %s %.0f', it.token, it.node, it.since)
end

function chunks.parse(id, text)
  local from, to, epoch, token, node, state, since, crashes, attempt, deferrals, due,
    recovery, tried, deaths, copy = string.match(text, RECORD)
  if not from then
    error('chunk ' .. id .. ' reads `' .. text .. '`')
  end
  return {
    id = tonumber(id),
    from = tonumber(from), to = tonumber(to), epoch = tonumber(epoch),
    token = token, node = node, state = state,
    since = tonumber(since), crashes = tonumber(crashes),
    attempt = tonumber(attempt), deferrals = tonumber(deferrals), due = tonumber(due),
    recovery = tonumber(recovery), tried = tried, deaths = deaths,
    copy = copy ~= '' and parse_copy(copy) or nil,
  }
end

-- `%d` takes a quarter of the time of `%.0f`, but counts no further than the server's `long`.
local function record_format()
  local format = '%d,%d,%d,%s,%s,%s,%d,%d,%d,%d,%d,%d,%s,%s%s'
  if string.format('%d', 2 ^ 40) == '1099511627776' then
    return format
  end
  return (string.gsub(format, '%%d', '%%.0f'))
end

local format

function chunks.text(it)
  format = format or record_format()
  return string.format(format,
    it.from, it.to, it.epoch, it.token, it.node, it.state, it.since, it.crashes,
    it.attempt, it.deferrals, it.due, it.recovery, it.tried, it.deaths, copy_text(it.copy))
end

-- The chunk, or nil if it is not open.
function chunks.load(key, id)
  local text = redis.call('HGET', key, id)
  return text and chunks.parse(id, text) or nil
end

-- Those of these chunks that are open, under their ids as given.
function chunks.load_all(key, ids)
  local open = {}
  for i, text in ipairs(redis.call('HMGET', key, unpack(ids))) do
    open[ids[i]] = text and chunks.parse(ids[i], text) or nil
  end
  return open
end

-- Those of the open chunks whose records `may_be` wanted and that, when read whole, are; in order of their number. A job may
-- have many thousands; to read all records takes ten times as long as to look for a word, and nobody else gets an answer
-- meanwhile.
local function choose(key, may_be, is_wanted)
  local flat, list = redis.call('HGETALL', key), {}
  for i = 1, #flat, 2 do
    local it = may_be(flat[i + 1]) and chunks.parse(flat[i], flat[i + 1])
    if it and is_wanted(it) then
      list[#list + 1] = it
    end
  end
  table.sort(list, function(a, b) return a.id < b.id end)
  return list
end

local function may_be_queued(text)
  return string.find(text, ',-,-,queued,', 1, true)
end

-- The queued chunks.
function chunks.queued(key)
  return choose(key, may_be_queued, function(it) return it.state == 'queued' end)
end

-- The queued chunks that nodes died of.
function chunks.queued_and_charged(key)
  return choose(key, function(text)
    return string.sub(text, -2) ~= ',-' and may_be_queued(text)
  end, function(it) return it.state == 'queued' end)
end

-- What a node holds, be it a copy, of what it claimed up to this time if one is given.
function chunks.held_by(key, node, claimed_by)
  local words, copied, latest = ',' .. node .. ',running,', ' ' .. node .. ' ', claimed_by or math.huge
  return choose(key, function(text)
    return string.find(text, words, 1, true) or string.find(text, copied, 1, true)
  end, function(it)
    if it.state == 'running' and it.node == node then
      return it.since <= latest
    end
    return it.copy and it.copy.node == node and it.copy.since <= latest
  end)
end

-- The running chunks that were claimed by this time.
function chunks.running_since(key, claimed_by)
  return choose(key, function(text) return string.find(text, ',running,', 1, true) end, function(it)
    return it.state == 'running' and it.since <= claimed_by
  end)
end

-- Who holds the chunk of this record, with which token, and since when; nil if it is queued.
function chunks.holder(text)
  local token, node, since = string.match(text, '^%d+,%d+,%d+,([^,]+),([^,]+),running,(%d+),')
  return node, token, since
end

-- The same of who holds a copy of it; nil if nobody does.
function chunks.copy_holder(text)
  -- Hardly any record has a copy, and most of the others end with the `-` of no deaths.
  if string.byte(text, -1) == 45 then
    return nil
  end
  local token, node, since = string.match(text, ',(%x+) ([^ ,]+) (%d+)$')
  return node, token, since
end

-- The range, the state and the due time of this record.
function chunks.extent(text)
  local from, to, state, due = string.match(text,
    '^(%d+),(%d+),%d+,[^,]+,[^,]+,(%a+),%d+,%d+,%d+,%d+,(%d+),')
  if not from then
    error('a chunk reads `' .. text .. '`')
  end
  return tonumber(from), tonumber(to), state, tonumber(due)
end

-- Keeps a running chunk, when the job is saved.
function chunks.save(of, key, it)
  job.write(of, 'HSET', key, it.id, chunks.text(it))
end

-- Keeps a queued chunk, when the job is saved.
function chunks.queue(of, key, due, it)
  chunks.save(of, key, it)
  job.write(of, 'ZADD', due, it.due, it.id)
end

-- Makes `:due` anew from the records.
function chunks.index(of, key, due)
  redis.call('DEL', due)
  for _, it in ipairs(chunks.queued(key)) do
    job.write(of, 'ZADD', due, it.due, it.id)
  end
  job.save(of)
end

-- The node that holds the chunk, or a copy of it, under this token; nil if none does.
function chunks.holder_by(it, token)
  if it and it.state == 'running' then
    return it.token == token and it.node
      or it.copy and it.copy.token == token and it.copy.node or nil
  end
end

-- `tried` with one more node.
function chunks.tried_also(tried, node)
  if tried == '-' then
    return node
  end
  tried = tried .. ' ' .. node
  local _, gaps = string.gsub(tried, ' ', ' ')
  return gaps < MOST_TRIED and tried or string.match(tried, ' (.*)$')
end

-- `tried` without what failed on nodes whose failures don't count, and how many attempts that makes.
function chunks.absolve(it, tried)
  local absolved = it.fields.absolved
  if not absolved or tried == '-' then
    return tried, 0
  end
  local kept, count = {}, 0
  for node in string.gmatch(tried, '%S+') do
    if string.find(' ' .. absolved .. ' ', ' ' .. node .. ' ', 1, true) then
      count = count + 1
    else
      kept[#kept + 1] = node
    end
  end
  return #kept > 0 and table.concat(kept, ' ') or '-', count
end

-- Cuts a queued chunk at these places. The first part stays in its own; gives all of them.
function chunks.cut(of, it, places)
  local parts, stop = { it }, it.to
  it.to = places[1] or stop
  for i, from in ipairs(places) do
    local part = chunks.parse(job.num(of, 'next_chunk'), chunks.text(it))
    part.from, part.to = from, places[i + 1] or stop
    job.add(of, 'next_chunk', 1)
    parts[#parts + 1] = part
  end
  return parts
end

-- Ends a hold where another node runs the chunk as well, and goes on alone. Gives false if there is none.
function chunks.leave_to_the_other(it, node)
  local copy = it.copy
  if not copy or copy.offered then
    return false
  end
  if copy.node ~= node then
    it.token, it.node, it.since = copy.token, copy.node, copy.since
  end
  it.copy = nil
  return true
end

-- Takes the chunk from its holder: whatever the holder still sends is fenced.
function chunks.requeue(it, now)
  it.state, it.token, it.node = 'queued', '-', '-'
  it.epoch, it.since, it.due = it.epoch + 1, now, now
  it.copy = nil
end
