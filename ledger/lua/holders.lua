--[[ holders: the nodes that hold chunks of the job, with the times of their first and last claim.
  Each is named once, in any order.
  KEYS[1] job            longshore:{J}
  KEYS[2] chunks         longshore:{J}:chunks
  Output  {node, oldest, newest, …}
  Flags   no-writes ]]
local open_chunks = KEYS[2]

local oldest, newest, flat = {}, {}, redis.call('HGETALL', open_chunks)
local function hold(node, since)
  if not oldest[node] then
    oldest[node], newest[node] = since, since
  elseif since < oldest[node] then
    oldest[node] = since
  elseif since > newest[node] then
    newest[node] = since
  end
end
for i = 2, #flat, 2 do
  local node, _, since = chunks.holder(flat[i])
  if node then
    hold(node, since)
    node, _, since = chunks.second_holder(flat[i])
    if node then
      hold(node, since)
    end
  end
end
local answer = {}
for node, since in pairs(oldest) do
  for _, value in ipairs({ node, since, newest[node] }) do
    answer[#answer + 1] = value
  end
end
return answer
