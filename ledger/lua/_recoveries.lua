--[[ _recoveries: one record for each time that work was taken back from a node, the newest 100.
  The hash `:recoveries` keeps number -> JSON; the job's field `recoveries` is the newest number. ]]

local recoveries = {}

local MAX_RECOVERIES = 100

-- Keeps a new record, under the next number.
function recoveries.keep(job, key, entry)
  jobs.add(job, 'recoveries', 1)
  local number = jobs.num(job, 'recoveries')
  redis.call('HSET', key, number, cjson.encode(entry))
  redis.call('HDEL', key, number - MAX_RECOVERIES)
end

-- Records that a chunk that a recovery queued again was claimed.
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
