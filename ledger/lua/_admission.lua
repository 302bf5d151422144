--[[ _admission: reads the fields of a new job and builds the job's hash.
  `admit` and `restore` get a job as pairs of a field and its value. Which fields there are is said
  by ADMISSION_FIELDS and RESTORE_FIELDS, generated from `src/redis/job_fields.rs`:
  field -> 'text' | 'number' | 'state'; REQUIRED_FIELDS lists those that no job lacks. A field is
  kept in the job's hash under its own name, unless it stands in NOT_KEPT. ]]

local admission = {}

-- `deadline_ms` counts from the submission; the hash has `deadline_at` instead.
local NOT_KEPT = { deadline_ms = true }

-- Counts that a new job starts with; a count that is not among these is absent, which reads as 0.
local COUNTS = { 'queued', 'running', 'retrying', 'done', 'failed', 'cancelled' }
local OTHER_COUNTS = { 'cursor', 'generation', 'attempts', 'lost', 'rate' }

local function misuse(...)
  return redis.error_reply('MISUSE ' .. string.format(...))
end

-- Whether a value is what its field takes.
local function is_valid(kind, value)
  if kind == 'number' then
    return string.find(value, '^%d+$') ~= nil
  end
  return kind == 'text' or NEXT[value] ~= nil
end

-- Reads the pairs from ARGV[first] on, of which each field must be one of `known`. Gives
-- { order = {field, …}, value = {field = value} }, or nil and an error reply. Writes nothing.
function admission.read(ARGV, first, known)
  local fields = { order = {}, value = {} }
  for i = first, #ARGV, 2 do
    local name, value = ARGV[i], ARGV[i + 1]
    if not known[name] then
      return nil, misuse('a job has no field `%s`', name)
    elseif fields.value[name] then
      return nil, misuse('the field `%s` comes twice', name)
    elseif not value or not is_valid(known[name], value) then
      return nil, misuse('the field `%s` is `%s`, not a %s', name, value or '', known[name])
    end
    fields.order[#fields.order + 1] = name
    fields.value[name] = value
  end
  for _, name in ipairs(REQUIRED_FIELDS) do
    if not fields.value[name] then
      return nil, misuse('the field `%s` is missing', name)
    end
  end
  local total, nodes = tonumber(fields.value.total), tonumber(fields.value.reduce_total) or 0
  if total < 1 then
    return nil, misuse('a job has at least one subtask')
  elseif total + nodes > 2 ^ 32 then
    return nil, misuse('more than 4294967296 subtasks and reduce nodes; '
      .. 'a bitmap of Redis ends there')
  end
  return fields
end

-- Sets a field that the caller did not give.
local function put_default(job, name, value)
  if not job.fields[name] then
    jobs.put(job, name, value)
  end
end

local function put_counts(job, prefix, total)
  put_default(job, prefix .. 'waiting', jobs.has_ended(job) and '0' or total)
  for _, name in ipairs(COUNTS) do
    put_default(job, prefix .. name, '0')
  end
end

-- A job with these fields that was submitted at that time. Writes nothing.
function admission.new_job(key, fields, submitted)
  local job = jobs.of(key, {})
  jobs.put(job, 'state', INITIAL_STATE)
  for _, name in ipairs(fields.order) do
    if not NOT_KEPT[name] then
      jobs.put(job, name, fields.value[name])
    end
  end
  put_counts(job, '', fields.value.total)
  jobs.put(job, 'submitted_at', submitted)
  for _, name in ipairs(OTHER_COUNTS) do
    put_default(job, name, '0')
  end
  jobs.put(job, 'level_to', fields.value.total)
  jobs.put(job, 'next_chunk', '1')
  if fields.value.fan_in then
    put_counts(job, 'reduce_', fields.value.reduce_total)
  end
  if fields.value.deadline_ms then
    jobs.put(job, 'deadline_at', submitted + tonumber(fields.value.deadline_ms))
  end
  return job
end

-- Writes the document and the manifest (empty: none) and removes the remains of an earlier job of
-- this name. The job itself is still to be saved.
function admission.write_document(keys, document, manifest)
  redis.call('UNLINK', keys.job, keys.manifest, keys.deleted, keys.cancel)
  redis.call('SET', keys.document, document)
  if manifest ~= '' then
    redis.call('SET', keys.manifest, manifest)
  end
end

-- The keys in the order in which `admit` and `restore` declare them.
function admission.keys(KEYS)
  return {
    job = KEYS[1], document = KEYS[2], manifest = KEYS[3], deleted = KEYS[4], cancel = KEYS[5],
  }
end
