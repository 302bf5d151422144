--[[ _chunks: the record of an open chunk, one line under the chunk's number in the hash `:chunks`.
  from,to,epoch,token,node,state,since,crashes,attempt,deferrals,due,recovery,tried,deaths[,second]
  state     CHUNK_QUEUED or CHUNK_RUNNING; a queued chunk has no token and no node (`-`), a running
            one has no due time (0)
  since     when the chunk entered this state
  recovery  the number of the recovery that queued the chunk, until the chunk is claimed (else 0)
  tried     the nodes on which attempts at all of its subtasks failed, oldest first, separated by
            spaces (`-`: none), once for each attempt; the newest 8
  deaths    the evidence against the chunk, oldest first: for each of the `crashes` nodes that died
            while they held it `node at among how`, separated by spaces (`-`: none); `how` is what
            the system said about the death, quoted as in URLs, or `-`
  second    a speculative execution of a running chunk: `offered at` while any other node may claim
            it, `token node since` once a second node holds the chunk as well
  The sorted set `:due` lists the queued chunks by their due time, so that a sweep does not have to
  read every record. ]]

local chunks = {}

local RECORD = '^(%d+),(%d+),(%d+),([^,]+),([^,]+),(%a+),(%d+),(%d+),(%d+),(%d+),(%d+),(%d+),'
  .. '([^,]+),([^,]+),?([^,]*)$'

-- How many failed attempts of a subtask are remembered with their nodes.
local MAX_TRIED = 8

local function parse_second(text)
  local at = string.match(text, '^offered (%d+)$')
  if at then
    return { offered = tonumber(at) }
  end
  local token, node, since = string.match(text, '^(%x+) ([^ ]+) (%d+)$')
  return token and { token = token, node = node, since = tonumber(since) }
end

local function second_text(second)
  if not second then
    return ''
  elseif second.offered then
    return string.format(',offered %.0f', second.offered)
  end
  return string.format(',%s %s %.0f', second.token, second.node, second.since)
end

function chunks.parse(id, text)
  local from, to, epoch, token, node, state, since, crashes, attempt, deferrals, due,
    recovery, tried, deaths, second = string.match(text, RECORD)
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
    second = second ~= '' and parse_second(second) or nil,
  }
end

-- A chunk that was never handed out.
function chunks.new(id, from, to, attempt, deferrals, tried, now, due)
  return {
    id = id, from = from, to = to, epoch = 1, token = '-', node = '-',
    state = CHUNK_QUEUED, since = now, crashes = 0, attempt = attempt, deferrals = deferrals,
    due = due, recovery = 0, tried = tried, deaths = '-',
  }
end

function chunks.is_queued(chunk)
  return chunk.state == CHUNK_QUEUED
end

function chunks.is_running(chunk)
  return chunk.state == CHUNK_RUNNING
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

function chunks.text(chunk)
  format = format or record_format()
  return string.format(format,
    chunk.from, chunk.to, chunk.epoch, chunk.token, chunk.node, chunk.state, chunk.since,
    chunk.crashes, chunk.attempt, chunk.deferrals, chunk.due, chunk.recovery, chunk.tried,
    chunk.deaths, second_text(chunk.second))
end

-- The chunk, or nil if it is not open.
function chunks.load(key, id)
  local text = redis.call('HGET', key, id)
  return text and chunks.parse(id, text) or nil
end

-- The open ones among the chunks with these ids, under the ids as given.
function chunks.load_all(key, ids)
  local open = {}
  for i, text in ipairs(redis.call('HMGET', key, unpack(ids))) do
    open[ids[i]] = text and chunks.parse(ids[i], text) or nil
  end
  return open
end

-- The open chunks for which `is_wanted` holds, in order of their number. `may_be` looks at the text
-- of a record and sorts out most of those that are not wanted: a job may have many thousands of
-- open chunks, to parse all records takes ten times as long as to search them for a word, and the
-- server answers nobody else meanwhile.
local function choose(key, may_be, is_wanted)
  local flat, list = redis.call('HGETALL', key), {}
  for i = 1, #flat, 2 do
    local chunk = may_be(flat[i + 1]) and chunks.parse(flat[i], flat[i + 1])
    if chunk and is_wanted(chunk) then
      list[#list + 1] = chunk
    end
  end
  table.sort(list, function(a, b) return a.id < b.id end)
  return list
end

local QUEUED_TEXT, RUNNING_TEXT = ',-,-,' .. CHUNK_QUEUED .. ',', ',' .. CHUNK_RUNNING .. ','

local function may_be_queued(text)
  return string.find(text, QUEUED_TEXT, 1, true)
end

-- The queued chunks.
function chunks.queued(key)
  return choose(key, may_be_queued, chunks.is_queued)
end

-- The queued chunks during which nodes died.
function chunks.queued_with_deaths(key)
  return choose(key, function(text)
    return string.sub(text, -2) ~= ',-' and may_be_queued(text)
  end, chunks.is_queued)
end

-- The chunks that a node holds, alone or as the second holder; with `claimed_by` only those that it
-- claimed at or before that time.
function chunks.held_by(key, node, claimed_by)
  local as_first, as_second = ',' .. node .. RUNNING_TEXT, ' ' .. node .. ' '
  local latest = claimed_by or math.huge
  return choose(key, function(text)
    return string.find(text, as_first, 1, true) or string.find(text, as_second, 1, true)
  end, function(chunk)
    if chunks.is_running(chunk) and chunk.node == node then
      return chunk.since <= latest
    end
    local second = chunk.second
    return second and second.node == node and second.since <= latest
  end)
end

-- The running chunks that were claimed at or before this time.
function chunks.running_since(key, claimed_by)
  return choose(key, function(text) return string.find(text, RUNNING_TEXT, 1, true) end,
    function(chunk) return chunks.is_running(chunk) and chunk.since <= claimed_by end)
end

local HOLDER = '^%d+,%d+,%d+,([^,]+),([^,]+)' .. RUNNING_TEXT .. '(%d+),'

-- The node that holds the chunk of this record, its token, and since when; nil for a queued chunk.
function chunks.holder(text)
  local token, node, since = string.match(text, HOLDER)
  return node, token, since
end

-- The same for the second holder; nil if there is none.
function chunks.second_holder(text)
  -- Few records have a second holder, and most others end with the `-` of no deaths.
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
function chunks.save(job, key, chunk)
  jobs.write(job, 'HSET', key, chunk.id, chunks.text(chunk))
end

-- Keeps a queued chunk, when the job is saved.
function chunks.queue(job, key, due, chunk)
  chunks.save(job, key, chunk)
  jobs.write(job, 'ZADD', due, chunk.due, chunk.id)
end

-- Rebuilds `:due` from the records.
function chunks.rebuild_due(job, key, due)
  redis.call('DEL', due)
  for _, chunk in ipairs(chunks.queued(key)) do
    jobs.write(job, 'ZADD', due, chunk.due, chunk.id)
  end
  jobs.save(job)
end

-- The node that holds the chunk, alone or as the second holder, under this token; nil if none does.
function chunks.holder_by(chunk, token)
  if chunk and chunks.is_running(chunk) then
    local second = chunk.second
    return chunk.token == token and chunk.node
      or second and second.token == token and second.node or nil
  end
end

-- `tried` with one more node.
function chunks.add_tried(tried, node)
  if tried == '-' then
    return node
  end
  tried = tried .. ' ' .. node
  local _, gaps = string.gsub(tried, ' ', ' ')
  return gaps < MAX_TRIED and tried or string.match(tried, ' (.*)$')
end

-- `tried` without the nodes whose failures use up no attempts, and how many attempts were on those.
function chunks.without_refunded(job, tried)
  local refunded = job.fields.refunded_nodes
  if not refunded or tried == '-' then
    return tried, 0
  end
  local kept, count = {}, 0
  for node in string.gmatch(tried, '%S+') do
    if string.find(' ' .. refunded .. ' ', ' ' .. node .. ' ', 1, true) then
      count = count + 1
    else
      kept[#kept + 1] = node
    end
  end
  return #kept > 0 and table.concat(kept, ' ') or '-', count
end

-- Cuts a queued chunk at these places. The first part keeps the chunk's number. Gives all parts.
function chunks.cut(job, chunk, places)
  local parts, stop = { chunk }, chunk.to
  chunk.to = places[1] or stop
  for i, from in ipairs(places) do
    local part = chunks.parse(jobs.num(job, 'next_chunk'), chunks.text(chunk))
    part.from, part.to = from, places[i + 1] or stop
    jobs.add(job, 'next_chunk', 1)
    parts[#parts + 1] = part
  end
  return parts
end

-- Gives a queued chunk to a node.
function chunks.grant(chunk, token, node, now)
  chunk.state, chunk.token, chunk.node = CHUNK_RUNNING, token, node
  chunk.since, chunk.due = now, 0
end

-- Ends the hold of `node` on a chunk that another node holds too: the other node goes on alone.
-- Gives false if there is no other holder.
function chunks.leave_to_other_holder(chunk, node)
  local second = chunk.second
  if not second or second.offered then
    return false
  end
  if second.node ~= node then
    chunk.token, chunk.node, chunk.since = second.token, second.node, second.since
  end
  chunk.second = nil
  return true
end

-- Takes the chunk from its holder and queues it: what the holder still sends is fenced.
function chunks.requeue(chunk, now)
  chunk.state, chunk.token, chunk.node = CHUNK_QUEUED, '-', '-'
  chunk.epoch, chunk.since, chunk.due = chunk.epoch + 1, now, now
  chunk.second = nil
end
