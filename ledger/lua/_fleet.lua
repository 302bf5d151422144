--[[ _fleet: who has news.
  KEYS of the list     longshore:{longshore:nodes}:news: node -> number of its last news ]]
local fleet = {}

-- Numbers are microseconds, so that they go on above what was given out even where the server lost its last second; they grow
-- also where its clock was set back.
function fleet.news(key, node)
  local last, time = redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')[2], redis.call('TIME')
  redis.call('ZADD', key, math.max((tonumber(last) or 0) + 1, time[1] * 1000000 + time[2]), node)
end
