--[[ beat: a worker's sign of life.
  KEYS[1] node           longshore:node:N
  ARGV[1] forget after, ms
  ARGV[2] "whole": all fields follow | "changed": those that changed since the last beat
  ARGV[3…] field, value, field, value, …
  Output  {now, "new" | "changed" | "known" | "missing", "drain" | "go on"}; "missing" if only changes
          came and there is nothing that they change: nothing was done ]]
local key, keep, extent = KEYS[1], tonumber(ARGV[1]), ARGV[2]

local before, now = redis.call('HMGET', key, 'state', 'drain'), job.now()
if not before[1] and extent == 'changed' then
  return { now, 'missing', 'go on' }
end
local fields, state = {}, before[1]
for i = 3, #ARGV, 2 do
  fields[#fields + 1] = ARGV[i]
  fields[#fields + 1] = ARGV[i + 1]
  if ARGV[i] == 'state' then
    state = ARGV[i + 1]
  end
end
local news = not before[1] and 'new' or before[1] ~= state and 'changed' or 'known'
redis.call('HSET', key, 'beat_at', now, unpack(fields))
-- Each time would be one more write of each beat.
if redis.call('PTTL', key) < keep / 2 then
  redis.call('PEXPIRE', key, keep)
end
return { now, news, before[2] and 'drain' or 'go on' }
