--[[ results: read a page of kept results, in index order.
  KEYS[1] results        longshore:{J}:results
  KEYS[2] done           longshore:{J}:done
  ARGV[1] from           ARGV[2] to       ARGV[3] most bytes
  Output  {next, from, count, lines, from, count, lines, …}
  Flags   no-writes ]]
local kept, done = KEYS[1], KEYS[2]
local from, to, most_bytes = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

return results.page(kept, done, from, to, most_bytes)
