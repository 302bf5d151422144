--[[ refund_attempts: name the nodes whose failures use up no attempts of the job. What one of them failed
  for good, and was not named before, is tried again.
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
  ARGV[3] nodes between spaces, or ""
  Output  {how many are tried again}
  Flags   allow-oom ]]
local keys = settle.keys(KEYS)
local channel, id, absolved = ARGV[1], ARGV[2], ARGV[3]
local BATCH = 1000

local it = job.load(keys.job)
if not it or job.has_ended(it) then
  return { 0 }
end
local before, is_new = ' ' .. (it.fields.absolved or '') .. ' ', {}
for node in string.gmatch(absolved, '%S+') do
  is_new[node] = not string.find(before, ' ' .. node .. ' ', 1, true)
end
if absolved == '' then
  job.drop(it, 'absolved')
else
  job.set(it, 'absolved', absolved)
end

local prefix, now = settle.level(it), job.now()
local level_from, level_to = job.num(it, 'level_from'), job.num(it, 'level_to')
local members, names = {}, {}
if next(is_new) and job.num(it, prefix .. 'failed') > 0 then
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
  failures.forget(keys, { unpack(names, first, last) })
end
job.add(it, prefix .. 'failed', -#names)
job.add(it, prefix .. 'retrying', #names)
job.save(it)
if #names > 0 then
  hints.room(channel, id)
end
return { #names }
