--[[ _subtask_errors: the errors of subtasks that failed for good, the newest 10,000.
  The hash `:errors` keeps index -> JSON; the sorted set `:errors:order` keeps the order in which
  the errors came, so that the oldest can be dropped. ]]

local subtask_errors = {}

local MAX_ERRORS = 10000

-- Keeps the error of a subtask. `node` ran the subtask; `deaths` is the evidence against a subtask
-- that killed its nodes, else nil.
function subtask_errors.keep(keys, index, text, attempt, node, now, deaths)
  local entry = { error = text, attempts = attempt, node = node, at = now, deaths = deaths }
  local newest = redis.call('ZREVRANGE', keys.order, 0, 0, 'WITHSCORES')
  redis.call('HSET', keys.errors, index, cjson.encode(entry))
  redis.call('ZADD', keys.order, (tonumber(newest[2]) or 0) + 1, index)
  if redis.call('ZCARD', keys.order) > MAX_ERRORS then
    local oldest = redis.call('ZPOPMIN', keys.order)
    redis.call('HDEL', keys.errors, oldest[1])
  end
end

-- The start of an error's text that the job itself shows: whole characters, at most 1 KiB.
function subtask_errors.shortened(text)
  local stop = 1024
  if #text <= stop then
    return text
  end
  while stop > 0 do
    local after = string.byte(text, stop + 1)
    if after < 0x80 or after > 0xBF then
      break
    end
    stop = stop - 1
  end
  return string.sub(text, 1, stop)
end

-- Forgets the errors of subtasks that are tried again; `indices` is not empty.
function subtask_errors.forget(keys, indices)
  redis.call('HDEL', keys.errors, unpack(indices))
  redis.call('ZREM', keys.order, unpack(indices))
end
