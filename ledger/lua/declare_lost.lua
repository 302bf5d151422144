--[[ declare_lost: record for all schedulers that a worker is lost or has left.
  KEYS[1] nodes          longshore:nodes
  KEYS[2] changes        longshore:{longshore:nodes}:changes
  KEYS[3] lost           longshore:{longshore:nodes}:lost:N
  KEYS[4] node           longshore:node:N; absent in a cluster, where it lies in another slot
  ARGV[1] node
  ARGV[2] evidence: "certain", whatever the list says | "absent", only if the node is not on the
          list | "beat", only if its last heartbeat came at this time | "time", only if none came
          later
  ARGV[3] that time, ms  ARGV[4] keep the verdict for, ms
  ARGV[5] "died" | "left"                          ARGV[6] how it died, or ""
  Output  {"lives"} | {"lost" | "known", time, last heartbeat, "died" | "left", how}
  Flags   allow-oom ]]
local list, changes, key, record = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local node, evidence, time = ARGV[1], ARGV[2], tonumber(ARGV[3])
local keep, lost, how = tonumber(ARGV[4]), ARGV[5], ARGV[6]

local beat_at = tonumber(redis.call('ZSCORE', list, node) or nil)
local function lives()
  return evidence == 'absent' or evidence == 'beat' and beat_at ~= time
    or evidence == 'time' and beat_at > time
end
if beat_at and lives() then
  return { 'lives' }
end
local fields = { 'at', 'beat_at', 'lost', 'how' }
local before = not beat_at and redis.call('HMGET', key, unpack(fields)) or {}
if before[1] then
  return { 'known', unpack(before) }
end
local verdict = { jobs.now(), beat_at or evidence == 'beat' and time or 0, lost, how }
redis.call('ZREM', list, node)
for i, field in ipairs(fields) do
  redis.call('HSET', key, field, verdict[i])
end
redis.call('PEXPIRE', key, keep)
node_changes.record(changes, node)
if record then
  redis.call('DEL', record)
end
return { 'lost', unpack(verdict) }
