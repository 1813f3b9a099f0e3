"""The scripts by which runs of workflows change, each one step of the server: no crash can part them.

As in `shared/state_scripts.py`, all but `start` begin with KEYS[1], which says that the run has ended: nothing is
written then; KEYS[2], the register of runs by the time at which the sweeper is to look; KEYS[3], what is known of the
run. ARGV[1] is the run, ARGV[2] the time of the next look, ARGV[3] the expiry, 0 for what is left of that of KEYS[3].
KEYS[4] is the stream of events, ARGV[4] an event. What is known of a step stands in fields `{step}:{what}` of one
hash, that of an item in `{item}:{what}` of its step's.
"""

from shared.claims import with_lease
from shared.state_scripts import BARRIER, TOUCH

_MOST_EVENTS = 50_000
_GONE = "redis.call('EXISTS', KEYS[1]) == 1 or redis.call('EXISTS', KEYS[3]) == 0"
_NOW = "local clock = redis.call('TIME'); local now = clock[1] + clock[2] / 1000000\n"
# What is kept lives as long as what is known of the run.
_TELL = f"""
local keep = tonumber(ARGV[3])
if keep == 0 then keep = redis.call('TTL', KEYS[3]) end
local function tell(event)
  redis.call('XADD', KEYS[4], 'MAXLEN', '~', {_MOST_EVENTS}, '*', 'event', event)
  redis.call('EXPIRE', KEYS[4], keep)
end
"""
_ENDED = """
local function over(state)
  return state == 'succeeded' or state == 'failed' or state == 'skipped' or state == 'not_run'
end
"""

# KEYS[1]: which run has the key, or the run itself where there is none. ARGV[5]: a digest of the input, "" without a
# key; ARGV[6…]: fields and values. Answers the run that has the key, with the digest of its input.
START = f"""
{_TELL}
if ARGV[5] ~= '' then
  local before = redis.call('GET', KEYS[1])
  if before then return before end
  redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[5], 'EX', ARGV[3])
end
for at = 6, #ARGV, 2 do redis.call('HSET', KEYS[3], ARGV[at], ARGV[at + 1]) end
redis.call('EXPIRE', KEYS[3], ARGV[3])
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
tell(ARGV[4])
return ''
"""

# A step goes out. KEYS[5]: steps. ARGV[5]: the step; ARGV[6]: its items, "" if it has none.
QUEUE = f"""
if {_GONE} then return 0 end
{_TELL}
if redis.call('HSETNX', KEYS[5], ARGV[5] .. ':state', 'queued') == 0 then return 0 end
if ARGV[6] ~= '' then redis.call('HSET', KEYS[5], ARGV[5] .. ':items', ARGV[6]) end
redis.call('EXPIRE', KEYS[5], keep)
tell(ARGV[4])
{TOUCH}
return 1
"""

# An attempt begins, or goes on in a later delivery, under the lease that is taken with it. KEYS[5]: steps; KEYS[6]:
# steps or items; KEYS[7]: deadlines; KEYS[8], KEYS[9]: gate and arrivals of the step; KEYS[10]: outputs; KEYS[11]:
# what its items are given. ARGV[5]: the step; ARGV[6]: the field's beginning; ARGV[7]: the attempt; ARGV[8]: its
# seconds; ARGV[9]: what names it among the deadlines.
BEGIN = f"""
if {_GONE} then return {{'ended'}} end
{_TELL}{_ENDED}{_NOW}
if KEYS[5] == KEYS[6] then
  redis.call('HSET', KEYS[8], 'sent', 1)
  redis.call('EXPIRE', KEYS[8], keep)
end
local known = redis.call('HGETALL', KEYS[3])
local state = redis.call('HGET', KEYS[6], ARGV[6] .. ':state')
if over(state) then return {{'done', state, known}} end
if over(redis.call('HGET', KEYS[5], ARGV[5] .. ':state')) then return {{'ended'}} end
local attempt = redis.call('HGET', KEYS[6], ARGV[6] .. ':attempt') or '1'
if attempt ~= ARGV[7] then return {{'stale', attempt, known}} end
if redis.call('HSETNX', KEYS[6], ARGV[6] .. ':begun', string.format('%.3f', now)) == 1 then
  redis.call('HSET', KEYS[6], ARGV[6] .. ':state', 'running')
  redis.call('HSET', KEYS[5], ARGV[5] .. ':state', 'running')
  redis.call('HSETNX', KEYS[5], ARGV[5] .. ':began', string.format('%.3f', now))
  redis.call('HINCRBY', KEYS[5], ARGV[5] .. ':attempts', 1)
  redis.call('ZADD', KEYS[7], now + ARGV[8], ARGV[9])
  redis.call('EXPIRE', KEYS[5], keep)
  redis.call('EXPIRE', KEYS[6], keep)
  tell(ARGV[4])
end
{TOUCH}
local left = redis.call('HGET', KEYS[6], ARGV[6] .. ':begun') + ARGV[8] - now
local arrived, given = redis.call('HGETALL', KEYS[9]), {{}}
if KEYS[5] ~= KEYS[6] then
  given = {{'', redis.call('HGET', KEYS[11], ARGV[6]) or ''}}
else
  for at = 1, #arrived, 2 do
    local output = redis.call('HGET', KEYS[10], arrived[at])
    if output then given[#given + 1] = arrived[at]; given[#given + 1] = output end
  end
end
return {{'taken', string.format('%.3f', left), known, arrived, given}}
"""

# An attempt has failed, and there is another. KEYS[5…7] and ARGV[5…7, 9] as above.
RETRY = f"""
if {_GONE} then return 0 end
{_TELL}{_ENDED}
local attempt = redis.call('HGET', KEYS[6], ARGV[6] .. ':attempt') or '1'
if attempt ~= ARGV[7] or over(redis.call('HGET', KEYS[6], ARGV[6] .. ':state')) then return 0 end
redis.call('HSET', KEYS[6], ARGV[6] .. ':attempt', ARGV[7] + 1, ARGV[6] .. ':state', 'retrying')
if KEYS[5] == KEYS[6] then redis.call('HSET', KEYS[5], ARGV[5] .. ':state', 'retrying') end
redis.call('HDEL', KEYS[6], ARGV[6] .. ':begun')
redis.call('ZREM', KEYS[7], ARGV[9])
tell(ARGV[4])
{TOUCH}
return 1
"""

# A step or an item has ended, once; who waits for it hears of it, however often this is said. KEYS[5…7] as above;
# KEYS[8]: outputs; KEYS[9…]: gate and arrivals of each who waits. ARGV[5…7, 9] as above, attempt 0 for any;
# ARGV[8]: the state; ARGV[10]: the reason; ARGV[11]: where the output goes, "" for nowhere; ARGV[12]: the output;
# ARGV[13…]: how many each who waits waits for, "" for all items.
# Answers whether it is so by this, and those who wait no more, by their places among them, with what has arrived there.
END = f"""
if {_GONE} then return {{-1}} end
{_TELL}{_ENDED}{BARRIER}{_NOW}
local state, written = redis.call('HGET', KEYS[6], ARGV[6] .. ':state'), 0
if not over(state) then
  local attempt = redis.call('HGET', KEYS[6], ARGV[6] .. ':attempt') or '1'
  if ARGV[7] ~= '0' and attempt ~= ARGV[7] then return {{-1}} end
  state, written = ARGV[8], 1
  redis.call('HSET', KEYS[6], ARGV[6] .. ':state', state, ARGV[6] .. ':ended', string.format('%.3f', now))
  if ARGV[10] ~= '' then redis.call('HSET', KEYS[6], ARGV[6] .. ':reason', ARGV[10]) end
  if ARGV[11] ~= '' then
    redis.call('HSET', KEYS[8], ARGV[11], ARGV[12])
    redis.call('EXPIRE', KEYS[8], keep)
  end
  if KEYS[5] ~= KEYS[6] then redis.call('HINCRBY', KEYS[5], ARGV[5] .. ':items_ended', 1) end
  redis.call('EXPIRE', KEYS[6], keep)
  redis.call('ZREM', KEYS[7], ARGV[9])
  tell(ARGV[4])
end
{TOUCH}
local answer = {{written}}
for at = 9, #KEYS, 2 do
  local number = (at - 9) / 2
  local expected = ARGV[13 + number]
  if expected == '' then expected = redis.call('HGET', KEYS[5], ARGV[5] .. ':items') end
  local last = arrives(KEYS[at], KEYS[at + 1], expected, ARGV[6], state)
  redis.call('EXPIRE', KEYS[at], keep)
  redis.call('EXPIRE', KEYS[at + 1], keep)
  if last == 1 then
    answer[#answer + 1] = number
    answer[#answer + 1] = redis.call('HGETALL', KEYS[at + 1])
  end
end
return answer
"""

# What a step says of itself. KEYS[5]: steps. ARGV[5…]: fields and values.
PROGRESS = f"""
if {_GONE} then return 0 end
{_TELL}
for at = 5, #ARGV, 2 do redis.call('HSET', KEYS[5], ARGV[at], ARGV[at + 1]) end
tell(ARGV[4])
{TOUCH}
return 1
"""

# What has no script of its own. KEYS[4]: a hash. ARGV: fields and values.
PUT = f"""
if {_GONE} then return 0 end
for at = 1, #ARGV, 2 do redis.call('HSET', KEYS[4], ARGV[at], ARGV[at + 1]) end
redis.call('EXPIRE', KEYS[4], redis.call('TTL', KEYS[3]))
"""

# The run has ended. KEYS[5]: outputs; KEYS[6], KEYS[7]: steps, and which run has the key, which are kept as well;
# KEYS[8…]: what is not. ARGV[5]: its status; ARGV[6]: the reason; ARGV[3] is how long it is kept. Answers the seconds
# that it took; "" if it had ended before.
FINISH = f"""
if {_GONE} then return '' end
{_TELL}{_NOW}
redis.call('SET', KEYS[1], '1', 'EX', ARGV[3])
redis.call('HSET', KEYS[3], 'status', ARGV[5], 'ended', string.format('%.3f', now))
if ARGV[6] ~= '' then redis.call('HSET', KEYS[3], 'reason', ARGV[6]) end
redis.call('ZREM', KEYS[2], ARGV[1])
tell(ARGV[4])
for _, name in ipairs(redis.call('HKEYS', KEYS[5])) do
  if string.find(name, '/', 1, true) then redis.call('HDEL', KEYS[5], name) end
end
for at = 3, 7 do redis.call('EXPIRE', KEYS[at], ARGV[3]) end
for at = 8, #KEYS do redis.call('UNLINK', KEYS[at]) end
return string.format('%.3f', now - redis.call('HGET', KEYS[3], 'began'))
"""

SCRIPTS = {
    "start": START,
    "queue": QUEUE,
    "begin": with_lease(BEGIN),
    "retry": RETRY,
    "end": END,
    "progress": PROGRESS,
    "put": PUT,
    "finish": FINISH,
}
