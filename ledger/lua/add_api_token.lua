--[[ add_api_token: keep an API token, unless there are too many.
  KEYS[1] tokens         longshore:api:tokens
  ARGV[1] token id       ARGV[2] the token and the digest of its secret: JSON
  ARGV[3] the most tokens that are kept
  Output  {"kept"} | {"full"} ]]
local key = KEYS[1]
local id, record, most = ARGV[1], ARGV[2], tonumber(ARGV[3])

if redis.call('HEXISTS', key, id) == 0 and redis.call('HLEN', key) >= most then
  return { 'full' }
end
redis.call('HSET', key, id, record)
return { 'kept' }
