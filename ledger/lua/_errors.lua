--[[ _errors: why subtasks failed for good, the newest 10,000.
  The hash `:errors` keeps index -> JSON; the sorted set `:errors:order` the order in which they
  came, to drop the oldest. ]]

local failures = {}

local MOST = 10000

function failures.keep(keys, index, text, chunk, now)
  local entry = { error = text, attempts = chunk.attempt, node = chunk.node, at = now }
  local newest = redis.call('ZREVRANGE', keys.order, 0, 0, 'WITHSCORES')
  redis.call('HSET', keys.errors, index, cjson.encode(entry))
  redis.call('ZADD', keys.order, (tonumber(newest[2]) or 0) + 1, index)
  if redis.call('ZCARD', keys.order) > MOST then
    local oldest = redis.call('ZPOPMIN', keys.order)
    redis.call('HDEL', keys.errors, oldest[1])
  end
end

-- Forgets the errors of subtasks that get another chance; `indices` is not empty.
function failures.forget(keys, indices)
  redis.call('HDEL', keys.errors, unpack(indices))
  redis.call('ZREM', keys.order, unpack(indices))
end
