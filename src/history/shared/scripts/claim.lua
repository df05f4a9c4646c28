-- Takes rollouts for new ones under a version: nobody else gets them any more. KEYS: the prompt. ARGV: how many, the
-- version, who asks, what the names of sidecars' versions begin with, seconds after which a mark is void.
-- Gives back whether earlier rollouts are under way or went on under the version, then the names of those taken, the
-- last begun first, each followed by its record; that of the asker's own is empty.
local wanted, version, me = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local oldest = redis.call('TIME')[1] - ARGV[5]
local selected, found, moved = 0, {}, {}
-- Whether a sidecar has left all these versions: then it has told of all that ran under them.
local function has_left(origin, versions)
  if origin == me then return true end
  if moved[origin] == nil then moved[origin] = redis.call('GET', ARGV[4] .. origin) end
  return moved[origin] and not string.find(versions, moved[origin], 1, true)
end
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  local origin, versions = string.match(field, '^r:%d+:(%x+):%x+:([%x,]+)$')
  if string.find(field, '^g:') then
    local begun, under = string.match(redis.call('HGET', KEYS[1], field), '^(%d+):(%x+)$')
    if not begun or tonumber(begun) / 1000000 < oldest then
      redis.call('HDEL', KEYS[1], field)
    elseif under ~= version then
      selected = 1
    end
  elseif origin then
    local first = string.match(versions, '^%x+')
    if string.find(versions, version, 1, true) then
      if first ~= version then selected = 1 end
    elseif has_left(origin, versions) then
      found[#found + 1] = field
    end
  end
end
table.sort(found, function(a, b) return a > b end)
local reply = { selected }
for at = 1, math.min(wanted, #found) do
  local field = found[at]
  reply[#reply + 1] = field
  if string.match(field, '^r:%d+:(%x+)') == me then
    reply[#reply + 1] = ''
  else
    reply[#reply + 1] = redis.call('HGET', KEYS[1], field)
  end
  redis.call('HDEL', KEYS[1], field)
end
return reply
