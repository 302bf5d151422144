--[[ _admission: a job as it comes in, all its subtasks waiting.
  The operations that take a job in share their first arguments: the sixteen of `admit`. ]]

local admission = {}

-- The error for a job that no ledger can keep, or nil.
function admission.misuse(ARGV)
  local total = tonumber(ARGV[6])
  if not total or total < 1 then
    return redis.error_reply('MISUSE a job has at least one subtask')
  end
  if total + (tonumber(ARGV[13]) or 0) > 2 ^ 32 then
    return redis.error_reply('MISUSE more than 4294967296 subtasks and reduce nodes; '
      .. 'a bitmap of Redis ends there')
  end
end

-- What a job of its kind begins with; counts that are not among these are absent, which reads as 0.
local BOOKS = { 'queued', 'running', 'retrying', 'done', 'failed', 'cancelled' }
local COUNTS = { 'cursor', 'generation', 'attempts', 'lost', 'rate' }

local function put_books(it, prefix, of)
  job.put(it, prefix .. 'total', of)
  job.put(it, prefix .. 'waiting', of)
  for _, name in ipairs(BOOKS) do
    job.put(it, prefix .. name, '0')
  end
end

-- A job that was submitted at that time. Writes nothing.
function admission.fresh(key, ARGV, submitted)
  local it = job.of(key, {})
  job.put(it, 'state', 'queued')
  job.put(it, 'task', ARGV[7])
  job.put(it, 'queue', ARGV[8])
  job.put(it, 'tenant', ARGV[9])
  job.put(it, 'priority', ARGV[10])
  put_books(it, '', ARGV[6])
  job.put(it, 'submitted_at', submitted)
  for _, name in ipairs(COUNTS) do
    job.put(it, name, '0')
  end
  job.put(it, 'level_to', ARGV[6])
  job.put(it, 'next_chunk', '1')
  if ARGV[12] ~= '' then
    job.put(it, 'fan_in', ARGV[12])
    put_books(it, 'reduce_', ARGV[13])
  end
  if ARGV[14] ~= '' then
    job.put(it, 'max_parallel', ARGV[14])
  end
  if ARGV[15] ~= '' then
    job.put(it, 'stop_after_failures', ARGV[15])
  end
  if ARGV[16] ~= '' then
    job.put(it, 'deadline_at', submitted + tonumber(ARGV[16]))
  end
  job.put(it, 'keep_for_ms', ARGV[11])
  job.put(it, 'digest', ARGV[3])
  return it
end

-- Writes the document and the manifest, in place of whatever had the job's name; the job itself is still to be saved.
function admission.clear_the_way(keys, ARGV)
  redis.call('UNLINK', keys.job, keys.manifest, keys.deleted, keys.cancel)
  redis.call('SET', keys.document, ARGV[4])
  if ARGV[5] ~= '' then
    redis.call('SET', keys.manifest, ARGV[5])
  end
end

-- The keys in the order in which the operations that take a job in declare them.
function admission.keys(KEYS)
  return {
    job = KEYS[1], document = KEYS[2], manifest = KEYS[3], deleted = KEYS[4], cancel = KEYS[5],
  }
end
