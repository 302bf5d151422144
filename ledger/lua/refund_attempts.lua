--[[ refund_attempts: set the nodes whose failures use up no attempts of the job.
  Subtasks that failed for good on a node that was not among them before are tried again.
  KEYS[1] job            longshore:{J}
  KEYS[2] document       longshore:{J}:doc
  KEYS[3] manifest       longshore:{J}:manifest
  KEYS[4] done           longshore:{J}:done
  KEYS[5] failed         longshore:{J}:failed
  KEYS[6] errors         longshore:{J}:errors
  KEYS[7] error order    longshore:{J}:errors:order
  KEYS[8] chunks         longshore:{J}:chunks
  KEYS[9] retry set      longshore:{J}:retry
  KEYS[10] results       longshore:{J}:results
  KEYS[11] recoveries    longshore:{J}:recoveries
  KEYS[12] due           longshore:{J}:due
  ARGV[1] events channel ARGV[2] job id
  ARGV[3] nodes, separated by spaces, or ""
  Output  {number of subtasks that are tried again}
  Flags   allow-oom ]]
local keys = lifecycle.keys(KEYS)
local channel, id, nodes = ARGV[1], ARGV[2], ARGV[3]
local BATCH = 1000

local job = jobs.load(keys.job)
if not job or jobs.has_ended(job) then
  return { 0 }
end
local before, is_new = ' ' .. (job.fields.refunded_nodes or '') .. ' ', {}
for node in string.gmatch(nodes, '%S+') do
  is_new[node] = not string.find(before, ' ' .. node .. ' ', 1, true)
end
if nodes == '' then
  jobs.drop(job, 'refunded_nodes')
else
  jobs.set(job, 'refunded_nodes', nodes)
end

local prefix, now = lifecycle.level(job), jobs.now()
local level_from, level_to = jobs.num(job, 'level_from'), jobs.num(job, 'level_to')
local members, names = {}, {}
if next(is_new) and jobs.num(job, prefix .. 'failed') > 0 then
  local flat = redis.call('HGETALL', keys.errors)
  for i = 1, #flat, 2 do
    local index, entry = tonumber(flat[i]), cjson.decode(flat[i + 1])
    if is_new[entry.node] and not entry.deaths and index >= level_from and index < level_to then
      members[#members + 1] = now
      members[#members + 1] = string.format('%.0f:%.0f', index, entry.attempts)
      names[#names + 1] = flat[i]
    end
  end
end
for first = 1, #names, BATCH do
  local last = math.min(first + BATCH - 1, #names)
  for i = first, last do
    redis.call('SETBIT', keys.failed, names[i], 0)
  end
  redis.call('ZADD', keys.retry, unpack(members, 2 * first - 1, 2 * last))
  subtask_errors.forget(keys, { unpack(names, first, last) })
end
jobs.add(job, prefix .. 'failed', -#names)
jobs.add(job, prefix .. 'retrying', #names)
jobs.save(job)
if #names > 0 then
  hints.room(channel, id)
end
return { #names }
