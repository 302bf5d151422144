--[[ beat: record a worker's heartbeat.
  KEYS[1] node           longshore:node:N
  KEYS[2] nodes          longshore:nodes; 2 to 4 are absent in a cluster, where they lie in another
  KEYS[3] changes        longshore:{longshore:nodes}:changes                                   slot
  KEYS[4] lost           longshore:{longshore:nodes}:lost:N
  ARGV[1] forget the node after, ms        ARGV[2] node
  ARGV[3] "whole": all fields follow, and the time after which to forget the node starts again
          "changes": the fields follow that changed since the last heartbeat
          "quiet": as "changes", but readers need not learn of them
  ARGV[4…] field, value, field, value, …
  Output  {now, "new" | "changed" | "known" | "missing", "drain" | "go on"}
          "changed": the node's state or tasks changed; "missing": only changed fields came, but the
          node has no record or is not on the list; nothing was done ]]
local key, list, changes, lost = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local keep, node, extent = tonumber(ARGV[1]), ARGV[2], ARGV[3]

local before, now = redis.call('HMGET', key, 'state', 'drain'), jobs.now()
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
-- A worker that drained before the ledger forgot it goes on doing so.
if not before[1] and redis.call('HGET', key, 'state') ~= 'active' then
  before[2] = redis.call('HSET', key, 'drain', 'asked')
end
if extent == 'whole' then
  redis.call('PEXPIRE', key, keep)
end
if list then
  redis.call('ZADD', list, now, node)
  redis.call('DEL', lost)
  if extent ~= 'quiet' then
    node_changes.record(changes, node)
  end
end
local what = not is_listed and 'new' or has_changed and 'changed' or 'known'
return { now, what, before[2] and 'drain' or 'go on' }
