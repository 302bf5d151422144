--[[ job: read one job.
  KEYS[1] job            longshore:{J}
  KEYS[2] retry set      longshore:{J}:retry
  Output  {} if the job is absent | {{fields of the job}, due of the next retry or ""}
  Flags   no-writes ]]
local key, retry = KEYS[1], KEYS[2]

local fields = redis.call('HGETALL', key)
if #fields == 0 then
  return {}
end
local first = redis.call('ZRANGE', retry, 0, 0, 'WITHSCORES')
return { fields, first[2] or '' }
