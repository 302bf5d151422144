--[[ _poison: decides into which parts a chunk that kills nodes is cut, and what is given up.
  The rules and their reasons are in `src/poison.rs`; this file is the same for Redis. ]]

local poison = {}

local SUSPECT, CUTS, VERDICT = 2, 4, 3

function poison.is_suspect(chunk)
  return chunk.crashes >= SUSPECT
end

-- The evidence as a list.
function poison.deaths(chunk)
  local list = {}
  for node, at, among, how in string.gmatch(chunk.deaths, '([^ ]+) (%d+) (%d+) ([^ ]+)') do
    list[#list + 1] = {
      node = node, at = tonumber(at), among = tonumber(among), how = poison.plain(how),
    }
  end
  return list
end

-- What the system said about a death, with spaces and commas quoted as in URLs; `-` if nothing.
function poison.quoted(how)
  return how and string.gsub(how, '[%s,%%-]', function(c)
    return string.format('%%%02X', string.byte(c))
  end) or '-'
end

function poison.plain(quoted)
  if quoted == '-' then
    return nil
  end
  return (string.gsub(quoted, '%%(%x%x)', function(code)
    return string.char(tonumber(code, 16))
  end))
end

-- Records that the node died while it held the chunk. Gives false if that was recorded already.
function poison.record_death(chunk, node, how, now)
  for _, death in ipairs(poison.deaths(chunk)) do
    if death.node == node then
      return false
    end
  end
  local death = string.format('%s %.0f %.0f %s', node, now, chunk.to - chunk.from,
    poison.quoted(how))
  chunk.deaths = chunk.crashes == 0 and death or chunk.deaths .. ' ' .. death
  chunk.crashes = chunk.crashes + 1
  return true
end

-- The reason to give up a chunk's only subtask, or nil.
function poison.verdict(chunk)
  local deaths, names = poison.deaths(chunk), {}
  for i = SUSPECT + 1, #deaths do
    if deaths[i].among == 1 then
      names[#names + 1] = deaths[i].node
    end
  end
  if #names < VERDICT then
    return nil
  end
  return string.format('%.0f nodes died running it alone (%s), %.0f in all; given up',
    #names, table.concat(names, ', '), #deaths)
end

-- Where to cut a chunk during which another node died: the starts of its parts after the first.
function poison.cuts(chunk)
  local first = chunk.from + 1
  local cuts_left, length = math.max(1, SUSPECT + CUTS - chunk.crashes), chunk.to - first
  local count = 1
  while count ^ cuts_left < length do
    count = count + 1
  end
  local starts = {}
  for at = first, chunk.to - 1, math.ceil(length / count) do
    starts[#starts + 1] = at
  end
  return starts
end

-- Whether more chunks of the job are open than may run at once, because some were cut.
function poison.is_over_parallel(job)
  local most = tonumber(job.fields.max_parallel)
  return most ~= nil and jobs.num(job, 'queued_chunks') + jobs.num(job, 'running_chunks') > most
end

-- Whether a queued chunk may run on this node now. The answer is no only where chunks were cut:
-- there may be more chunks than `max_parallel`, and with two suspects on one node nobody could tell
-- which of them killed the node.
function poison.may_run(job, open_chunks, chunk, node)
  if poison.is_over_parallel(job)
    and jobs.num(job, 'running_chunks') >= tonumber(job.fields.max_parallel) then
    return false
  end
  if poison.is_suspect(chunk) then
    jobs.save(job)
    for _, other in ipairs(chunks.held_by(open_chunks, node)) do
      if poison.is_suspect(other) then
        return false
      end
    end
  end
  return true
end

-- Called when a hold on a chunk has ended. Makes the chunks due at once that may have been refused
-- because of that hold: the other suspects if the chunk was a suspect, all chunks if the job was
-- `over` its `max_parallel`.
function poison.make_refused_due(job, open_chunks, due, suspect, over, now)
  if not suspect and not over then
    return
  end
  jobs.save(job)
  local refused = over and chunks.queued(open_chunks) or chunks.queued_with_deaths(open_chunks)
  for _, chunk in ipairs(refused) do
    if over or poison.is_suspect(chunk) then
      chunk.due = now
      chunks.queue(job, open_chunks, due, chunk)
    end
  end
end
