--[[ beat: a worker's sign of life.
  KEYS[1] node           longshore:node:N
  KEYS[2] nodes          longshore:nodes
  KEYS[3] news           longshore:{longshore:nodes}:news
  KEYS[4] lost           longshore:{longshore:nodes}:lost:N; in a cluster 2 to 4 are not given, since they lie elsewhere
  ARGV[1] forget after, ms                 ARGV[2] node
  ARGV[3] "whole": all fields follow, and the time after which to forget begins anew
          "news": those follow that changed since the last beat
          "nothing": as "news", and nobody waits for them
  ARGV[4…] field, value, field, value, …
  Output  {now, "new" | "changed" | "known" | "missing", "drain" | "go on"}; "changed": its
          state or its tasks did; "missing" if only changes
          came and there is nothing that they change, or the node is not on the list: nothing was done ]]
local key, list, news, lost = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local keep, node, extent = tonumber(ARGV[1]), ARGV[2], ARGV[3]

local before, now = redis.call('HMGET', key, 'state', 'drain'), job.now()
local is_listed = before[1] and (not list or redis.call('ZSCORE', list, node))
if not is_listed and extent ~= 'whole' then
  return { now, 'missing', 'go on' }
end
local has_changed = false
for i = 4, #ARGV, 2 do
  if ARGV[i] == 'state' then
    has_changed = has_changed or before[1] ~= ARGV[i + 1]
  elseif ARGV[i] == 'tasks' then
    has_changed = has_changed or redis.call('HGET', key, 'tasks') ~= ARGV[i + 1]
  end
end
if ARGV[4] then
  redis.call('HSET', key, unpack(ARGV, 4))
end
if extent == 'whole' then
  redis.call('PEXPIRE', key, keep)
end
if list then
  redis.call('ZADD', list, now, node)
  redis.call('DEL', lost)
  if extent ~= 'nothing' then
    fleet.news(news, node)
  end
end
local what = not is_listed and 'new' or has_changed and 'changed' or 'known'
return { now, what, before[2] and 'drain' or 'go on' }
