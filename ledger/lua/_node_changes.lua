--[[ _node_changes: numbers the changes of the records of workers, so that readers fetch only those.
  KEYS of the set      longshore:{longshore:nodes}:changes: node -> number of its newest change ]]
local node_changes = {}

-- Gives the node the next number. Numbers are microseconds, so that they stay above all numbers
-- given before even if the server lost its last second; they grow even if its clock was set back.
function node_changes.record(key, node)
  local last, time = redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')[2], redis.call('TIME')
  redis.call('ZADD', key, math.max((tonumber(last) or 0) + 1, time[1] * 1000000 + time[2]), node)
end
