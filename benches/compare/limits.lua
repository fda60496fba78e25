-- What Callgate does on the way of a request, done by nginx with Lua as gateways on it do: one call to Redis, on a
-- connection that is kept, looks the token up and counts the request in two exact windows. A refusal is remembered until
-- a request leaves the full window, at most for a second.
local redis = require "nginx.redis"

-- The token's record, and a sorted set of its admissions in the last hour by when they were (µs).
local SCRIPT = [[
local record = redis.call('HMGET', KEYS[1], 'permission', 'minute', 'hour')
if not record[1] then return false end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local log, windows = KEYS[2], { { record[2] + 0, 60000000 }, { record[3] + 0, 3600000000 } }
redis.call('ZREMRANGEBYSCORE', log, '-inf', now - windows[2][2])
windows[1][3] = redis.call('ZCOUNT', log, now - windows[1][2] + 1, '+inf')
windows[2][3] = redis.call('ZCARD', log)
local tightest = windows[1]
if windows[2][1] - windows[2][3] < tightest[1] - tightest[3] then tightest = windows[2] end
local remaining = tightest[1] - tightest[3]
local admitted = remaining > 0
if admitted then
  redis.call('ZADD', log, now, now)
  redis.call('PEXPIRE', log, 3600000)
  remaining = remaining - 1
end
local oldest = redis.call('ZRANGE', log, now - tightest[2] + 1, '+inf', 'BYSCORE', 'LIMIT', 0, 1)[1] or now
return { admitted and 1 or 0, tightest[1], remaining, math.ceil((oldest + tightest[2] - now) / 1000000), record[1] }
]]
local DIGEST = (ngx.sha1_bin(SCRIPT):gsub(".", function(byte) return ("%02x"):format(byte:byte()) end))

local function refuse(status, body)
  ngx.status = status
  ngx.header.content_length = #body
  ngx.print(body)
  return ngx.exit(status)
end

local function refuse_beyond(limit, reset)
  ngx.header["Retry-After"] = reset
  ngx.header["X-RateLimit-Limit"] = limit
  ngx.header["X-RateLimit-Remaining"] = 0
  ngx.header["X-RateLimit-Reset"] = reset
  return refuse(429, '{"message":"The limit is reached.","code":"rate_limited"}')
end

local M = {}

function M.check()
  local token = (ngx.var.http_authorization or ""):match("^Bearer (%S+)$")
  if not token then
    return refuse(401, '{"message":"A token is needed.","code":"missing_token"}')
  end
  local remembered = ngx.shared.refusals
  local reset, limit = remembered:get(token)
  if reset then
    return refuse_beyond(limit, reset)
  end
  local connection = redis:new()
  connection:set_timeout(5000)
  assert(connection:connect("127.0.0.1", ngx.var.redis))
  local keys = { "{" .. token .. "}:token", "{" .. token .. "}:log" }
  local answer, problem = connection:evalsha(DIGEST, 2, unpack(keys))
  if problem and problem:find("NOSCRIPT", 1, true) then
    answer = connection:eval(SCRIPT, 2, unpack(keys))
  end
  connection:set_keepalive(60000, 128)
  if not answer then
    return refuse(503, '{"message":"Redis does not answer.","code":"unavailable"}')
  end
  if answer == ngx.null then
    return refuse(401, '{"message":"The token is not valid.","code":"invalid_token"}')
  end
  if answer[5] ~= "calls:read" then
    return refuse(403, '{"message":"The token lacks calls:read.","code":"forbidden"}')
  end
  if answer[1] == 0 then
    remembered:set(token, answer[4], math.min(answer[4], 1), answer[2])
    return refuse_beyond(answer[2], answer[4])
  end
  ngx.header["X-RateLimit-Limit"] = answer[2]
  ngx.header["X-RateLimit-Remaining"] = answer[3]
  ngx.header["X-RateLimit-Reset"] = answer[4]
end

return M
