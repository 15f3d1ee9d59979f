-- One exchange of a node with a token bucket. Time is in microseconds by Redis's clock, in `now`.
-- KEYS: the bucket, a hash; the leases, a sorted set of nodes by when their lease ends. They share a slot.
-- In the hash: t time of n; n tokens in the bucket; o tokens out in leases; b burst and r rate that n was filled by;
-- a:NODE tokens of the node's lease; s:NODE number of the exchange that made it.
local bucket, leases = KEYS[1], KEYS[2]
local echo, node, number = ARGV[1], ARGV[2], tonumber(ARGV[3])
local held, give, need, want = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local debit, length = tonumber(ARGV[8]), tonumber(ARGV[9])
local burst, rate = tonumber(ARGV[10]), tonumber(ARGV[11])

local h = redis.call('HMGET', bucket, 't', 'n', 'o', 'b', 'r', 'a:' .. node, 's:' .. node)
local t, n, o = tonumber(h[1]) or now, tonumber(h[2]) or burst, tonumber(h[3]) or 0
local full, pace = tonumber(h[4]) or burst, tonumber(h[5]) or rate
local mine, last = tonumber(h[6]), tonumber(h[7])
if mine and number <= last then -- it was overtaken, and changes nothing
  return {echo, 2, 0, '0', '0'}
end

-- What is out in leases may be unspent and counts as in the bucket: both together never exceed the burst.
t = math.min(t, now) -- a clock that was put back refills nothing
local function refill(to)
  n = math.min(n + math.max(0, to - t) * pace, math.max(0, full - o))
  t = math.max(t, to)
end

local ended = redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'WITHSCORES')
for i = 1, #ended, 2 do
  local other = ended[i]
  refill(tonumber(ended[i + 1]))
  o = math.max(0, o - (tonumber(redis.call('HGET', bucket, 'a:' .. other)) or 0))
  redis.call('HDEL', bucket, 'a:' .. other, 's:' .. other)
  redis.call('ZREM', leases, other)
  if other == node then mine = nil end
end
refill(now)

local status = 0
if mine then
  give = math.min(give, mine)
  held = math.min(held, mine - give)
  n, o = n + give, math.max(0, o - mine)
else -- the lease has ended here: what the node still has of it is void
  if held + give > 0 then status = 1 end
  held = 0
end
n = math.max(math.min(n, math.max(0, burst - o - held)) - debit, -burst)

-- Less than a microsecond's worth is there already.
local granted = math.max(0, math.min(need, math.floor(n + rate)))
granted = granted + math.max(0, math.min(want, math.floor((n - granted) / 4)))
n = n - granted
local out = held + granted
o = o + out

local format = string.format
redis.call('HSET', bucket, 't', format('%.17g', now), 'n', format('%.17g', n), 'o', o, 'b', burst, 'r', ARGV[11])
if out > 0 then
  redis.call('HSET', bucket, 'a:' .. node, out, 's:' .. node, number)
  redis.call('ZADD', leases, format('%.17g', now + length), node)
else
  redis.call('HDEL', bucket, 'a:' .. node, 's:' .. node)
  redis.call('ZREM', leases, node)
end
-- A bucket that isn't there is full, so it stays until it is.
local life = math.ceil(((burst - n) / rate + length) / 1000) + 1000
redis.call('PEXPIRE', bucket, life)
redis.call('PEXPIRE', leases, life)
return {echo, status, granted, format('%.17g', n), tostring(o)}
