--[[ holders: the nodes that hold chunks of the job, each once, in any order.
  KEYS[1] job            longshore:{J}
  KEYS[2] chunks         longshore:{J}:chunks
  Output  {node, …}
  Flags   no-writes ]]
local open_chunks = KEYS[2]

local answer, seen = {}, {}
for _, chunk in ipairs(chunks.all(open_chunks)) do
  if chunk.state == 'running' and not seen[chunk.node] then
    seen[chunk.node] = true
    answer[#answer + 1] = chunk.node
  end
end
return answer
