--[[ news: there is something to read of a worker.
  KEYS[1] news           longshore:{longshore:nodes}:news
  ARGV[1] node
  Output  {} ]]
fleet.news(KEYS[1], ARGV[1])
return {}
