--[[ holders: the nodes that hold chunks of the job, each once, in any order.
  KEYS[1] job            longshore:{J}
  KEYS[2] chunks         longshore:{J}:chunks
  Output  {node, …}
  Flags   no-writes ]]
local open_chunks = KEYS[2]

local answer, seen, flat = {}, {}, redis.call('HGETALL', open_chunks)
for i = 2, #flat, 2 do
  local node = chunks.holder(flat[i])
  if node and not seen[node] then
    seen[node] = true
    answer[#answer + 1] = node
  end
end
return answer
