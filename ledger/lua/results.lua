--[[ results: kept runs in index order, a page at a time.
  KEYS[1] results        longshore:{J}:results
  KEYS[2] done           longshore:{J}:done
  ARGV[1] from           ARGV[2] to       ARGV[3] most bytes
  Output  {next, from, count, lines, from, count, lines, …}
  Flags   no-writes ]]
return results.page(KEYS[1], KEYS[2], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]))
