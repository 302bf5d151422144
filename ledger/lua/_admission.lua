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

-- A job that was submitted at that time. Writes nothing.
function admission.fresh(key, ARGV, submitted)
  local it = job.of(key, {})
  local total = tonumber(ARGV[6])
  local function set(name, value)
    job.set(it, name, value)
  end
  local function set_books(prefix, of)
    set(prefix .. 'total', of)
    set(prefix .. 'waiting', of)
    for _, name in ipairs({ 'queued', 'running', 'retrying', 'done', 'failed', 'cancelled' }) do
      set(prefix .. name, 0)
    end
  end
  set('state', 'queued')
  set('task', ARGV[7])
  set('queue', ARGV[8])
  set('tenant', ARGV[9])
  set('priority', ARGV[10])
  set_books('', total)
  set('submitted_at', submitted)
  for _, name in ipairs({ 'cursor', 'level_from', 'queued_chunks', 'running_chunks', 'generation',
    'attempts', 'busy_ms', 'lost', 'recoveries', 'crashes', 'orphaned', 'reissued', 'copies',
    'fenced', 'rate' }) do
    set(name, 0)
  end
  set('level_to', total)
  set('next_chunk', 1)
  if ARGV[12] ~= '' then
    set('fan_in', ARGV[12])
    set_books('reduce_', tonumber(ARGV[13]))
  end
  if ARGV[14] ~= '' then
    set('max_parallel', ARGV[14])
  end
  if ARGV[15] ~= '' then
    set('stop_after_failures', ARGV[15])
  end
  if ARGV[16] ~= '' then
    set('deadline_at', submitted + tonumber(ARGV[16]))
  end
  set('keep_for_ms', ARGV[11])
  set('digest', ARGV[3])
  return it
end

-- Writes the job, its document and its manifest, in place of whatever had its name.
function admission.save(it, keys, ARGV)
  redis.call('DEL', keys.job, keys.manifest, keys.deleted)
  job.save(it)
  redis.call('SET', keys.document, ARGV[4])
  if ARGV[5] ~= '' then
    redis.call('SET', keys.manifest, ARGV[5])
  end
end

-- The keys in the order in which the operations that take a job in declare them.
function admission.keys(KEYS)
  return { job = KEYS[1], document = KEYS[2], manifest = KEYS[3], deleted = KEYS[4] }
end
