--[[ recoveries: read the recoveries of a job, newest first.
  KEYS[1] job            longshore:{J}
  KEYS[2] recoveries     longshore:{J}:recoveries
  ARGV[1] most recoveries
  Output  {JSON, …}
  Flags   no-writes ]]
local key, kept, most = KEYS[1], KEYS[2], tonumber(ARGV[1])

local newest = tonumber(redis.call('HGET', key, 'recoveries')) or 0
local answer = {}
for number = newest, 1, -1 do
  local text = #answer < most and redis.call('HGET', kept, number)
  if not text then
    break
  end
  answer[#answer + 1] = text
end
return answer
