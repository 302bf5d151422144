--[[ clock: the ledger's time, which continues evenly when the server's clock jumps.
  KEYS[1] clock          longshore:clock
  ARGV[1] the time that the caller expects by its own clock, ms
  ARGV[2] the largest difference that is no jump, ms
  Output  {now} ]]
local key, expected, tolerance = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
-- A jump is made up for at 5 % of the speed of time, so that the ledger's time slowly approaches
-- the server's time again.
local SLOWNESS = 20

local kept, server = redis.call('HMGET', key, 'offset', 'at'), jobs.server_time()
local offset, at = tonumber(kept[1]) or 0, tonumber(kept[2]) or 0
local now = server + offset
if math.abs(now - expected) > tolerance then
  redis.call('HSET', key, 'offset', expected - server, 'at', expected)
  return { expected }
end
local step = math.min(math.abs(offset), math.floor((now - at) / SLOWNESS))
if step > 0 then
  offset = offset > 0 and offset - step or offset + step
  redis.call('HSET', key, 'offset', offset, 'at', now)
end
return { server + offset }
