-- One exchange of a node with a quota. Time is in microseconds by Redis's clock, in `now`.
-- KEYS: the quota, a hash: p start of the period in seconds since 1970; e its end; k units and unit it is made of;
-- u calls counted in it, those out in leases included; o calls out in leases; a:NODE tokens of the node's lease;
-- s:NODE number of the exchange that made it.
local quota = KEYS[1]
local echo, node, number = ARGV[1], ARGV[2], tonumber(ARGV[3])
local held, give, need, want = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local debit, count, units, unit = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10]), ARGV[11]
-- Calls that the node knows were counted, of the period that began then; and when that of the debit began.
local known, of, owing = tonumber(ARGV[12]), tonumber(ARGV[13]), tonumber(ARGV[14])

-- Months are counted from January 1970; days to dates as in the proleptic Gregorian calendar.
local function days(month)
  local y, m = 1970 + math.floor(month / 12), month % 12 -- m: 0 is January
  y, m = m < 2 and y - 1 or y, (m + 10) % 12 -- years begin in March
  return 365 * y + math.floor(y / 4) - math.floor(y / 100) + math.floor(y / 400) + math.floor((153 * m + 2) / 5) - 719468
end
local function period(second)
  if unit == 'day' then
    local length = units * 86400
    local start = math.floor(second / length) * length
    return start, start + length
  end
  local month = math.floor(second / 86400 / 30.436875)
  while days(month) * 86400 > second do month = month - 1 end
  while days(month + 1) * 86400 <= second do month = month + 1 end
  local first = math.floor(month / units) * units
  return days(first) * 86400, days(first + units) * 86400
end

local second = now / 1000000
local kind = units .. unit
local h = redis.call('HMGET', quota, 'p', 'e', 'k', 'u', 'o', 'a:' .. node, 's:' .. node)
local start, finish, used, out = tonumber(h[1]), tonumber(h[2]), tonumber(h[4]) or 0, tonumber(h[5]) or 0
local mine, last = tonumber(h[6]), tonumber(h[7])
if start and second >= finish then -- a new period
  redis.call('DEL', quota)
  start, used, out, mine, last = nil, 0, 0, nil, nil
end
if last and number <= last then -- it was overtaken, and changes nothing
  return {echo, 2, 0, '0', '0', '0', '0', '0'}
end
if not start or h[3] ~= kind then -- calls already counted stay counted when the period's length changes
  start, finish = period(start and math.max(second, start) or second)
end

local status = 0
if mine then
  give = math.min(give, mine)
  held = math.min(held, mine - give)
  used = used - give
  out = out - mine
else -- of another period, or lost: what the node still has of it is void
  if held + give > 0 then status = 1 end
  held = 0
end
if of == start then -- unless Redis has lost them, they are counted already
  used = math.max(used, known)
end
if owing == start then
  used = used + debit
end

local left = math.max(0, count - used)
local granted = math.min(need, left)
granted = granted + math.max(0, math.min(want, math.floor((left - granted) / 4)))
used = used + granted
out = out + held + granted

redis.call('HSET', quota, 'p', start, 'e', finish, 'k', kind, 'u', used, 'o', out,
  'a:' .. node, held + granted, 's:' .. node, number)
-- An hour more, since a clock that is put back does not give the same period twice.
redis.call('PEXPIRE', quota, math.ceil((finish - second) * 1000) + 3600000)
return {
  echo, status, granted, tostring(math.max(0, count - used)), string.format('%.0f', finish * 1000000 - now),
  string.format('%.0f', start), string.format('%.0f', (finish - start) * 1000000), string.format('%.0f', used - out),
}
