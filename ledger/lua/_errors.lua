--[[ _errors: why subtasks failed for good, the newest 10,000.
  The hash `:errors` keeps index -> JSON; the sorted set `:errors:order` the order in which they
  came, to drop the oldest. ]]

local failures = {}

local MOST = 10000

-- `node` ran it; `deaths` is the evidence against a subtask that killed its nodes, else nil.
function failures.keep(keys, index, text, attempt, node, now, deaths)
  local entry = { error = text, attempts = attempt, node = node, at = now, deaths = deaths }
  local newest = redis.call('ZREVRANGE', keys.order, 0, 0, 'WITHSCORES')
  redis.call('HSET', keys.errors, index, cjson.encode(entry))
  redis.call('ZADD', keys.order, (tonumber(newest[2]) or 0) + 1, index)
  if redis.call('ZCARD', keys.order) > MOST then
    local oldest = redis.call('ZPOPMIN', keys.order)
    redis.call('HDEL', keys.errors, oldest[1])
  end
end

-- As much of a failure's text as the job itself shows: whole characters of at most 1 KiB.
function failures.shortened(text)
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

-- Forgets the errors of subtasks that get another chance; `indices` is not empty.
function failures.forget(keys, indices)
  redis.call('HDEL', keys.errors, unpack(indices))
  redis.call('ZREM', keys.order, unpack(indices))
end
