--[[ _recoveries: what was done for each lost node, the newest 100.
  The hash `:recoveries` keeps number -> JSON; the job's field `recoveries` is the newest number. ]]

local recoveries = {}

local MOST = 100

-- Keeps the next one.
function recoveries.keep(it, key, entry)
  job.add(it, 'recoveries', 1)
  local number = job.num(it, 'recoveries')
  redis.call('HSET', key, number, cjson.encode(entry))
  redis.call('HDEL', key, number - MOST)
end

-- A chunk that was queued again is claimed.
function recoveries.claimed(key, chunk, now)
  local text = chunk.recovery > 0 and redis.call('HGET', key, chunk.recovery)
  if text then
    local entry = cjson.decode(text)
    entry.waiting = entry.waiting - 1
    if entry.waiting == 0 then
      entry.again_after_ms = math.max(0, now - entry.at)
    end
    redis.call('HSET', key, chunk.recovery, cjson.encode(entry))
  end
  chunk.recovery = 0
end
