-- A rollout is over. KEYS: the prompt. ARGV: its mark, who says so, what else its record's name says, the record, its
-- text (either may be empty), most of each to keep, seconds until the prompt is forgotten.
-- Only the first lines can fail, so the record is there whole or not at all.
local mark, origin, name, record, text = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local begun = string.match(redis.call('HGET', KEYS[1], mark) or '', '^%d+')
if not begun then
  local time = redis.call('TIME')
  begun = string.format('%016.0f', time[1] * 1000000 + time[2])
end
if text ~= '' then
  local number = redis.call('HINCRBY', KEYS[1], 'n', 1)
  redis.call('HSET', KEYS[1], string.format('t:%016.0f:%s', number, origin), text)
end
if record ~= '' then
  redis.call('HSET', KEYS[1], 'r:' .. begun .. ':' .. origin .. ':' .. name, record)
end
redis.call('HDEL', KEYS[1], mark)
redis.call('EXPIRE', KEYS[1], ARGV[7])
local most = tonumber(ARGV[6])
if redis.call('HLEN', KEYS[1]) > most then
  local kinds = { r = {}, t = {} }
  for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
    local kind = kinds[string.match(field, '^([rt]):')]
    if kind then kind[#kind + 1] = field end
  end
  for _, fields in pairs(kinds) do
    table.sort(fields)
    for at = 1, #fields - most do redis.call('HDEL', KEYS[1], fields[at]) end
  end
end
return 0
