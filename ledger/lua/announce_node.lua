--[[ announce_node: tell readers that the record of a worker changed.
  KEYS[1] changes        longshore:{longshore:nodes}:changes
  ARGV[1] node
  Output  {} ]]
local changes, node = KEYS[1], ARGV[1]

node_changes.record(changes, node)
return {}
