--[[ beat: a worker's sign of life.
  KEYS[1] node           longshore:node:N
  ARGV[1] forget after, ms
  ARGV[2…] field, value, field, value, …
  Output  {now, "new" | "changed" | "known", "drain" | "go on"} ]]
local key, keep = KEYS[1], ARGV[1]

local before = redis.call('HMGET', key, 'state', 'drain')
local now, fields, state = job.now(), {}, nil
for i = 2, #ARGV, 2 do
  fields[#fields + 1] = ARGV[i]
  fields[#fields + 1] = ARGV[i + 1]
  if ARGV[i] == 'state' then
    state = ARGV[i + 1]
  end
end
redis.call('HSET', key, 'beat_at', now, unpack(fields))
redis.call('PEXPIRE', key, keep)
local news = not before[1] and 'new' or before[1] ~= state and 'changed' or 'known'
return { now, news, before[2] and 'drain' or 'go on' }
