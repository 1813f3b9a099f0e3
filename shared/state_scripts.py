"""The scripts by which the state of executions changes, each one step of the server: no crash can part them.

All begin with KEYS[1], which says that the execution has ended: nothing is written then; KEYS[2], the register of
executions by the time at which the reaper is to look after them; KEYS[3], what is known of the execution. ARGV[1] is
the execution, ARGV[2] the time of the next look, ARGV[3] the expiry. `push` alone is for executions of others, too.
"""

_UNLESS_ENDED = "if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end\n"
# Progress: the next look is later, but never after the deadline.
TOUCH = """
local deadline = redis.call('HGET', KEYS[3], 'deadline')
if deadline then redis.call('ZADD', KEYS[2], 'XX', math.min(tonumber(ARGV[2]), tonumber(deadline)), ARGV[1]) end
"""

# The barrier, at which batches meet, and the steps of workflows: who arrives counts once, and the one that completes
# the set is the one to go on, and no other; that one again when it is redelivered because its first delivery died
# before `sent` was written. `gate` and `arrived` are keys, and what became of each stands in the latter.
BARRIER = """
local function arrives(gate, arrived, expected, who, result)
  redis.call('HSETNX', arrived, who, result)
  if redis.call('HLEN', arrived) < tonumber(expected) then return 0 end
  redis.call('HSETNX', gate, 'fired', who)
  if redis.call('HGET', gate, 'fired') ~= who then return 0 end
  return 1 - redis.call('HEXISTS', gate, 'sent')
end
"""

# ARGV[4…]: fields and values of the run, of which the first are kept. Gives those that are.
REGISTER = f"""
if redis.call('EXISTS', KEYS[1]) == 1 then return {{}} end
for at = 4, #ARGV, 2 do redis.call('HSETNX', KEYS[3], ARGV[at], ARGV[at + 1]) end
redis.call('EXPIRE', KEYS[3], ARGV[3])
redis.call('ZADD', KEYS[2], 'NX', ARGV[2], ARGV[1])
{TOUCH}
return redis.call('HGETALL', KEYS[3])
"""

# KEYS[4]: the plan; KEYS[5]: asked lately whether it was stopped. ARGV[4]: batches; ARGV[5]: files; ARGV[6]: seconds
# until it is asked; ARGV[7…]: numbers of batches and their messages.
OPEN = f"""
{_UNLESS_ENDED}
if redis.call('HSETNX', KEYS[3], 'batches', ARGV[4]) == 0 then return 0 end
redis.call('HSET', KEYS[3], 'files', ARGV[5])
for at = 7, #ARGV, 2 do redis.call('HSET', KEYS[4], ARGV[at], ARGV[at + 1]) end
redis.call('EXPIRE', KEYS[4], ARGV[3])
redis.call('SET', KEYS[5], '1', 'EX', ARGV[6])
{TOUCH}
return 1
"""

# A batch's result. KEYS[4]: results; KEYS[5]: the plan. ARGV[4]: the batch; ARGV[5]: its result.
RECORD = f"""
{BARRIER}
{_UNLESS_ENDED}
local expected = redis.call('HGET', KEYS[3], 'batches')
if not expected then return 0 end
local last = arrives(KEYS[3], KEYS[4], expected, ARGV[4], ARGV[5])
redis.call('EXPIRE', KEYS[4], ARGV[3])
redis.call('HDEL', KEYS[5], ARGV[4])
{TOUCH}
return last
"""

# KEYS[4]: where to. ARGV[4]: HSET or HSETNX; ARGV[5…]: fields and values.
PUT = f"""
{_UNLESS_ENDED}
for at = 5, #ARGV, 2 do redis.call(ARGV[4], KEYS[4], ARGV[at], ARGV[at + 1]) end
redis.call('EXPIRE', KEYS[4], ARGV[3])
{TOUCH}
return 1
"""

# A file begins, unless its execution is known to be stopped, or it is time to ask: who comes first is to ask before.
# KEYS[4]: 1 if that was asked lately, or as what it was stopped; KEYS[5]: when files were first started; KEYS[6]: where
# they are. ARGV[4]: the file; ARGV[5]: now; ARGV[6]: where it is then; ARGV[7]: seconds until it is asked again. Gives
# as what it was stopped, whether to ask, and when the file was first started.
BEGIN_FILE = f"""
local look = redis.call('GET', KEYS[4])
if look and look ~= '1' then return {{look, 0, ARGV[5]}} end
if not look then
  redis.call('SET', KEYS[4], '1', 'EX', ARGV[7])
  return {{'', 1, ARGV[5]}}
end
if redis.call('EXISTS', KEYS[1]) == 1 then return {{'', 0, ARGV[5]}} end
redis.call('HSETNX', KEYS[5], ARGV[4], ARGV[5])
redis.call('HSET', KEYS[6], ARGV[4], ARGV[6])
for at = 5, 6 do redis.call('EXPIRE', KEYS[at], ARGV[3]) end
{TOUCH}
return {{'', 0, redis.call('HGET', KEYS[5], ARGV[4])}}
"""

# KEYS[4]: how files ended; KEYS[5]: where they are. ARGV[4]: the file; ARGV[5]: how it ended, of which the first is
# kept; ARGV[6]: where it is then.
END_FILE = f"""
{_UNLESS_ENDED}
redis.call('HSETNX', KEYS[4], ARGV[4], ARGV[5])
redis.call('HSET', KEYS[5], ARGV[4], ARGV[6])
for at = 4, 5 do redis.call('EXPIRE', KEYS[at], ARGV[3]) end
{TOUCH}
return 1
"""

# KEYS[4]: tries by webhook. ARGV[4]: the webhook.
NOTIFY = f"""
{_UNLESS_ENDED}
if redis.call('HGET', KEYS[4], ARGV[4]) == 'told' then return 0 end
local try = redis.call('HINCRBY', KEYS[4], ARGV[4], 1)
redis.call('EXPIRE', KEYS[4], ARGV[3])
{TOUCH}
return try
"""

# The reaper has looked. ARGV[4]: when it is to look again.
LOOK = f"""
{_UNLESS_ENDED}
redis.call('ZADD', KEYS[2], 'XX', ARGV[4], ARGV[1])
redis.call('HINCRBY', KEYS[3], 'looks', 1)
redis.call('EXPIRE', KEYS[3], ARGV[3])
return 1
"""

# Push a file's result for the backend once: the push and its claim are one step. KEYS: ended, claims, stages, results.
# ARGV: the file, its result, expiry of the claims, expiry of the results, and perhaps its place and where it is.
PUSH = f"""
{_UNLESS_ENDED}
if redis.call('SADD', KEYS[2], ARGV[1]) == 0 then return 0 end
redis.call('EXPIRE', KEYS[2], ARGV[3])
redis.call('RPUSH', KEYS[4], ARGV[2])
redis.call('EXPIRE', KEYS[4], ARGV[4])
if ARGV[5] then
  redis.call('HSET', KEYS[3], ARGV[5], ARGV[6])
  redis.call('EXPIRE', KEYS[3], ARGV[3])
end
return 1
"""

SCRIPTS = {
    "register": REGISTER,
    "open": OPEN,
    "record": RECORD,
    "put": PUT,
    "begin_file": BEGIN_FILE,
    "end_file": END_FILE,
    "push": PUSH,
    "notify": NOTIFY,
    "look": LOOK,
}
