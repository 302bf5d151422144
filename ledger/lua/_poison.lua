--[[ _poison: which subtask kills the nodes that run it. The rules and their reasons are in
  `src/poison.rs`; this is the same for Redis. ]]

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

-- What the system said of a death, without spaces and commas, as URLs do it; `-` if nothing.
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

-- The node died while it held the chunk. Gives false if that is known already.
function poison.charge(chunk, node, how, now)
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

-- Why the subtask that is left is given up, or nil.
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

-- Where the parts of a chunk that another node died of begin, after the first part.
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

-- Whether more chunks of the job are open than may run at once, since some were cut.
function poison.is_over_parallel(it)
  local most = tonumber(it.fields.max_parallel)
  return most ~= nil and job.num(it, 'queued_chunks') + job.num(it, 'running_chunks') > most
end

-- Whether a queued chunk may run now and there. Only where chunks were cut may it not: they can be
-- more than `max_parallel`, and two suspects on one node would leave open which of them killed it.
function poison.has_room_for(it, open_chunks, chunk, node)
  if poison.is_over_parallel(it)
    and job.num(it, 'running_chunks') >= tonumber(it.fields.max_parallel) then
    return false
  end
  if poison.is_suspect(chunk) then
    job.save(it)
    for _, other in ipairs(chunks.held_by(open_chunks, node)) do
      if poison.is_suspect(other) then
        return false
      end
    end
  end
  return true
end

-- A hold on a chunk has ended. What may have been refused for it is due at once: the other suspects
-- if it was one, everything if the job was `over` what may run at once.
function poison.offer_again(it, open_chunks, due, suspect, over, now)
  if not suspect and not over then
    return
  end
  job.save(it)
  local refused = over and chunks.queued(open_chunks) or chunks.queued_and_charged(open_chunks)
  for _, chunk in ipairs(refused) do
    if over or poison.is_suspect(chunk) then
      chunk.due = now
      chunks.queue(it, open_chunks, due, chunk)
    end
  end
end
