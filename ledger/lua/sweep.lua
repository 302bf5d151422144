--[[ sweep: bring rate and estimate up to date, and name the chunks whose message is due again.
  KEYS[1] job            longshore:{J}
  KEYS[2] chunks         longshore:{J}:chunks
  KEYS[3] retry set      longshore:{J}:retry
  KEYS[4] due            longshore:{J}:due
  ARGV[1] most chunks    ARGV[2] publish within, ms
  ARGV[3] doubt the message of what has been queued for so long, ms, or ""
  Output  {} if the job is absent |
          {{fields of the job}, due of the next retry or "", {chunk, from, to, epoch, …}} ]]
local key, open_chunks, retry, due = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local limit, within, doubt = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3] or '')
local LOOK_MS, AVERAGE_MS = 1000, 10000

local it = job.load(key)
if not it then
  return {}
end
local now, publish = job.now(), {}

-- An exponentially weighted moving average: what is older than AVERAGE_MS hardly counts.
local function measure()
  local settled = job.num(it, 'done') + job.num(it, 'failed')
    + job.num(it, 'reduce_done') + job.num(it, 'reduce_failed')
  local since = tonumber(it.fields.rate_at) or job.num(it, 'submitted_at')
  local elapsed = now - since
  if elapsed < LOOK_MS then
    return
  end
  local lately = math.max(0, settled - job.num(it, 'rate_settled')) * 1000 / elapsed
  local rate, weight = job.num(it, 'rate'), 1 - math.exp(-elapsed / AVERAGE_MS)
  rate = it.fields.rate_at and rate + (lately - rate) * weight or lately
  job.set(it, 'rate', string.format('%.3f', rate))
  job.set(it, 'rate_at', now)
  job.set(it, 'rate_settled', settled)
end
local function estimate()
  local rate, state, open = job.num(it, 'rate'), job.state(it), 0
  for _, name in ipairs({ 'waiting', 'queued', 'running', 'retrying' }) do
    open = open + job.num(it, name) + job.num(it, 'reduce_' .. name)
  end
  if rate > 0 and (state == 'running' or state == 'reducing') then
    job.set(it, 'eta_ms', string.format('%.0f', open * 1000 / rate))
  else
    job.drop(it, 'eta_ms')
  end
end

if not job.has_ended(it) then
  measure()
  estimate()
  job.save(it)
end
if not job.has_ended(it) and job.state(it) ~= 'paused' and job.num(it, 'queued_chunks') > 0 then
  -- Chunks of a build that had no `:due`, or somebody's slip: nothing may be forgotten for it.
  if redis.call('ZCARD', due) ~= job.num(it, 'queued_chunks') then
    chunks.index(it, open_chunks, due)
  end
  local numbers = redis.call('ZRANGEBYSCORE', due, '-inf', doubt and '+inf' or now)
  for i = 1, #numbers do
    numbers[i] = tonumber(numbers[i])
  end
  table.sort(numbers)
  for _, number in ipairs(numbers) do
    if #publish >= 4 * limit then
      break
    end
    local chunk = chunks.load(open_chunks, number)
    local queued_for = now - chunk.since
    if chunk.due <= now or doubt and queued_for >= doubt then
      chunk.due = now + math.max(within, queued_for)
      chunks.queue(it, open_chunks, due, chunk)
      for _, value in ipairs({ chunk.id, chunk.from, chunk.to, chunk.epoch }) do
        publish[#publish + 1] = value
      end
    end
  end
  job.save(it)
end
local first = redis.call('ZRANGE', retry, 0, 0, 'WITHSCORES')
return { redis.call('HGETALL', key), first[2] or '', publish }
