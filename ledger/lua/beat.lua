--[[ beat: a worker's sign of life.
  KEYS[1] node           longshore:node:N
  KEYS[2] nodes          longshore:nodes; not given in a cluster, where it lies elsewhere
  ARGV[1] forget after, ms                 ARGV[2] node
  ARGV[3] "whole": all fields follow, and the time after which to forget begins anew
          "changed": those follow that changed since the last beat
  ARGV[4…] field, value, field, value, …
  Output  {now, "new" | "changed" | "known" | "missing", "drain" | "go on"}; "missing" if only changes
          came and there is nothing that they change: nothing was done ]]
local key, list = KEYS[1], KEYS[2]
local keep, node, extent = tonumber(ARGV[1]), ARGV[2], ARGV[3]

local before, now = redis.call('HMGET', key, 'state', 'drain'), job.now()
if not before[1] and extent == 'changed' then
  return { now, 'missing', 'go on' }
end
local state = before[1]
for i = 4, #ARGV, 2 do
  if ARGV[i] == 'state' then
    state = ARGV[i + 1]
  end
end
local news = not before[1] and 'new' or before[1] ~= state and 'changed' or 'known'
redis.call('HSET', key, 'beat_at', now, unpack(ARGV, 4))
if list then
  redis.call('ZADD', list, now, node)
end
if extent == 'whole' then
  redis.call('PEXPIRE', key, keep)
end
return { now, news, before[2] and 'drain' or 'go on' }
