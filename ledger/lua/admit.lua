--[[ admit: take a job in, all its subtasks waiting.
  KEYS[1] job            longshore:{J}
  KEYS[2] document       longshore:{J}:doc
  KEYS[3] manifest       longshore:{J}:manifest
  ARGV[1] events channel ARGV[2] job id
  ARGV[3] digest         ARGV[4] document        ARGV[5] manifest (empty: none)
  ARGV[6] total          ARGV[7] task            ARGV[8] queue
  ARGV[9] tenant         ARGV[10] priority       ARGV[11] keep_for, ms
  ARGV[12] fan_in        ARGV[13] reduce nodes   (12 to 16 are empty where they don't apply)
  ARGV[14] max_parallel  ARGV[15] stop_after_failures   ARGV[16] deadline, ms from now
  Output  {"accepted", now} | {"known"} | {"conflict"} ]]
local key, document, manifest = KEYS[1], KEYS[2], KEYS[3]
local channel, id, digest, total = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[6])

if not total or total < 1 then
  return redis.error_reply('MISUSE a job has at least one subtask')
end
if total + (tonumber(ARGV[13]) or 0) > 2 ^ 32 then
  return redis.error_reply('MISUSE more than 4294967296 subtasks and reduce nodes; '
    .. 'a bitmap of Redis ends there')
end
local known = job.load(key)
if known and job.state(known) ~= 'rejected' then
  return { known.fields.digest == digest and 'known' or 'conflict' }
end

redis.call('DEL', key)
local now = job.now()
local it = job.of(key, {})
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
set('submitted_at', now)
for _, name in ipairs({ 'cursor', 'level_from', 'queued_chunks', 'running_chunks', 'generation',
  'attempts', 'busy_ms', 'lost', 'rate' }) do
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
  set('deadline_at', now + tonumber(ARGV[16]))
end
set('keep_for_ms', ARGV[11])
set('digest', digest)
job.save(it)
redis.call('SET', document, ARGV[4])
if ARGV[5] ~= '' then
  redis.call('SET', manifest, ARGV[5])
end
job.announce(channel, id, it)
return { 'accepted', now }
