--- Trying again what may fail at first.
---
--- Only what happens inside the function is tried again: a run that is stopped or out of time ends
--- at once.

local retry = {}

--- Calls `work` until it ends without an error, and gives its result. It gets the number of the
--- attempt, from 1. The last error is passed on.
---
--- Options:
--- - `attempts`: how many times at most. Default: 5.
--- - `delay`: how long to wait after the first error. Default: "200ms".
--- - `factor`: how much longer to wait after each further one. Default: 2.
--- - `max_delay`: the longest wait. Default: "10s".
--- - `timeout`: no new attempt begins after this long. Default: none.
---
--- ```rhai
--- import "std/retry" as retry;
--- let page = retry::run(#{ attempts: 3 }, || box.run("cat /etc/hostname").stdout);
--- ```
--- ```lua
--- local retry = require("std.retry")
--- local page = retry.run({ attempts = 3 }, function() return box:run("cat /etc/hostname").stdout end)
--- ```
function retry.run(options, work)
  if work == nil then options, work = {}, options end
  local o = check_options(options, { attempts = 5, delay = "200ms", factor = 2, max_delay = "10s" }, { "timeout" })
  local delay, longest = seconds(o.delay), seconds(o.max_delay)
  local timeout = rawget(o, "timeout")
  local ends = timeout and now() + seconds(timeout)
  local attempt = 1
  while attempt < o.attempts do
    local ok, result = pcall(work, attempt)
    if ok then return result end
    if ends and now() + delay >= ends then error(result, 0) end
    sleep(delay)
    delay = math.min(delay * o.factor, longest)
    attempt = attempt + 1
  end
  -- The last attempt is not caught, so that its error shows where it happened.
  return work(attempt)
end

--- Waits until `condition` gives `true`. It is asked at once, and then again and again; an error in
--- it is passed on.
---
--- Options:
--- - `timeout`: how long to wait. Default: "30s".
--- - `interval`: how long to wait between two questions. Default: "200ms".
--- - `what`: what is waited for, for the message. Default: "the condition".
---
--- ```rhai
--- import "std/retry" as retry;
--- retry::wait_for(#{ what: "the user list" }, || box.exists("/etc/passwd"));
--- ```
--- ```lua
--- local retry = require("std.retry")
--- retry.wait_for({ what = "the user list" }, function() return box:exists("/etc/passwd") end)
--- ```
function retry.wait_for(options, condition)
  if condition == nil then options, condition = {}, options end
  local o = check_options(options, { timeout = "30s", interval = "200ms", what = "the condition" })
  local ends = now() + seconds(o.timeout)
  while condition() ~= true do
    if now() >= ends then fail("waited " .. o.timeout .. " for " .. o.what) end
    sleep(o.interval)
  end
end

return retry
