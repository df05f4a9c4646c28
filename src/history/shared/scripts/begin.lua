-- A rollout begins. KEYS: the prompt. ARGV: its mark, its version, seconds until the prompt is forgotten.
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], ARGV[1], string.format('%016.0f:%s', time[1] * 1000000 + time[2], ARGV[2]))
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 0
