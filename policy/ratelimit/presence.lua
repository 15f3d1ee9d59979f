-- A node says that it is there, and learns how many are. It writes, so a server that can't be written to fails here.
-- KEYS: the nodes, a sorted set by when they were seen last, in microseconds by Redis's clock, in `now`.
local seen = tonumber(ARGV[3])
if seen > 0 then
  redis.call('ZADD', KEYS[1], string.format('%.17g', now), ARGV[2])
else
  redis.call('ZREM', KEYS[1], ARGV[2])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.17g', now - math.abs(seen)))
redis.call('PEXPIRE', KEYS[1], 60000)
return {ARGV[1], redis.call('ZCARD', KEYS[1])}
