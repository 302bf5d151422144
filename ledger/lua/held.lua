--[[ held: whether a worker may go on with the chunks that it believes to hold.
  KEYS[1] job            longshore:{J}
  KEYS[2] chunks         longshore:{J}:chunks
  ARGV[1…] chunk, token (hex), chunk, token, …
  Output  {"ok" | "ended" | "revoked" | "paused", …}, one for each chunk
  Flags   no-writes ]]
local key, open_chunks = KEYS[1], KEYS[2]

local state, answer = redis.call('HGET', key, 'state'), {}
for i = 1, #ARGV, 2 do
  if not state or ENDED[state] then
    answer[#answer + 1] = 'ended'
  elseif not chunks.is_held(chunks.load(open_chunks, ARGV[i]), ARGV[i + 1]) then
    answer[#answer + 1] = 'revoked'
  else
    answer[#answer + 1] = state == 'paused' and 'paused' or 'ok'
  end
end
return answer
