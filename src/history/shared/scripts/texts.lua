-- Texts of others. KEYS: the prompt. ARGV: after which number, who asks, most texts.
-- Gives back numbers, each followed by its text, in ascending order.
local after, me, most = ARGV[1], ARGV[2], tonumber(ARGV[3])
local found = {}
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  local number, origin = string.match(field, '^t:(%d+):(%x+)$')
  if number and #number == #after and number > after and origin ~= me then found[#found + 1] = field end
end
table.sort(found)
local reply = {}
for at = math.max(1, #found - most + 1), #found do
  reply[#reply + 1] = string.match(found[at], '^t:(%d+)')
  reply[#reply + 1] = redis.call('HGET', KEYS[1], found[at])
end
return reply
