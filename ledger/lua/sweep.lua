--[[ sweep: update a job's rate and estimate, and list the queued chunks to publish again.
  KEYS[1] job            longshore:{J}
  KEYS[2] chunks         longshore:{J}:chunks
  KEYS[3] retry set      longshore:{J}:retry
  KEYS[4] due            longshore:{J}:due
  ARGV[1] most chunks    ARGV[2] publish within, ms
  ARGV[3] suspect the message of a chunk queued for at least so long to be lost, ms, or "" for none
  Output  {} if the job is absent |
          {{fields of the job}, due of the next retry or "", {chunk, from, to, epoch, …}} ]]
local key, open_chunks, retry, due = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local limit, within, suspect_after = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3] or '')
local MEASURE_MS, AVERAGE_MS = 1000, 10000

local job = jobs.load(key)
if not job then
  return {}
end
local now, publish = jobs.now(), {}

-- An exponentially weighted moving average: work older than AVERAGE_MS hardly counts.
local function measure()
  local settled = jobs.num(job, 'done') + jobs.num(job, 'failed')
    + jobs.num(job, 'reduce_done') + jobs.num(job, 'reduce_failed')
  local since = tonumber(job.fields.rate_at) or jobs.num(job, 'submitted_at')
  local elapsed = now - since
  if elapsed < MEASURE_MS then
    return
  end
  local lately = math.max(0, settled - jobs.num(job, 'rate_settled')) * 1000 / elapsed
  local rate, weight = jobs.num(job, 'rate'), 1 - math.exp(-elapsed / AVERAGE_MS)
  rate = job.fields.rate_at and rate + (lately - rate) * weight or lately
  jobs.set(job, 'rate', string.format('%.3f', rate))
  jobs.set(job, 'rate_at', now)
  jobs.set(job, 'rate_settled', settled)
end
local function estimate()
  local rate, open = jobs.num(job, 'rate'), 0
  for _, name in ipairs({ 'waiting', 'queued', 'running', 'retrying' }) do
    open = open + jobs.num(job, name) + jobs.num(job, 'reduce_' .. name)
  end
  if rate > 0 and jobs.is_in_progress(job) then
    jobs.set(job, 'eta_ms', string.format('%.0f', open * 1000 / rate))
  else
    jobs.drop(job, 'eta_ms')
  end
end

if not jobs.has_ended(job) then
  measure()
  estimate()
  jobs.save(job)
end
if jobs.feeds(job) and jobs.num(job, 'queued_chunks') > 0 then
  -- `:due` may be incomplete after another build or a stranger wrote the keys. No chunk may be
  -- forgotten because of that.
  if redis.call('ZCARD', due) ~= jobs.num(job, 'queued_chunks') then
    chunks.rebuild_due(job, open_chunks, due)
  end
  local numbers = redis.call('ZRANGEBYSCORE', due, '-inf', suspect_after and '+inf' or now)
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
    if chunk.due <= now or suspect_after and queued_for >= suspect_after then
      chunk.due = now + math.max(within, queued_for)
      chunks.queue(job, open_chunks, due, chunk)
      for _, value in ipairs({ chunk.id, chunk.from, chunk.to, chunk.epoch }) do
        publish[#publish + 1] = value
      end
    end
  end
  jobs.save(job)
end
local first = redis.call('ZRANGE', retry, 0, 0, 'WITHSCORES')
return { redis.call('HGETALL', key), first[2] or '', publish }
