--[[ check_held: whether a worker may continue with the chunks that it believes to hold.
  KEYS[1] job            longshore:{J}
  KEYS[2] chunks         longshore:{J}:chunks
  ARGV[1…] chunk, token (hex), chunk, token, …
  Output  {"ok" | "ended" | "revoked" | "paused", …}, one for each chunk
  Flags   no-writes ]]
local key, open_chunks = KEYS[1], KEYS[2]

-- Fields read in one command; Lua's stack surely has space for as many.
local BATCH = 1000

local state, records, answer = redis.call('HGET', key, 'state'), {}, {}
local has_ended = not state or TERMINAL[state]
for first = 1, has_ended and 0 or #ARGV, 2 * BATCH do
  local ids = {}
  for i = first, math.min(first + 2 * BATCH, #ARGV) - 1, 2 do
    ids[#ids + 1] = ARGV[i]
  end
  for _, text in ipairs(redis.call('HMGET', open_chunks, unpack(ids))) do
    records[#records + 1] = text
  end
end
for i = 1, #ARGV, 2 do
  local text = records[(i + 1) / 2]
  local _, token = chunks.holder(text or '')
  local _, second = chunks.second_holder(text or '')
  if has_ended then
    answer[#answer + 1] = 'ended'
  elseif token ~= ARGV[i + 1] and second ~= ARGV[i + 1] then
    answer[#answer + 1] = 'revoked'
  else
    answer[#answer + 1] = FEEDS[state] and 'ok' or 'paused'
  end
end
return answer
