---@meta std.retry

-- Made by sandscript stubs; what you change here is lost.

---Trying again what may fail at first.
---
---Only what happens inside the function is tried again: a run that is stopped or out of time ends
---at once.
---@class std.retry
local retry = {}

---@class (exact) std.retry.run.Options
---@field attempts? number how many times at most. Default: 5.
---@field delay? Duration how long to wait after the first error. Default: "200ms".
---@field factor? number how much longer to wait after each further one. Default: 2.
---@field max_delay? Duration the longest wait. Default: "10s".
---@field timeout? Duration no new attempt begins after this long. Default: none.

---Calls `work` until it ends without an error, and gives its result. It gets the number of the
---attempt, from 1. The last error is passed on.
---
---Options:
---- `attempts`: how many times at most. Default: 5.
---- `delay`: how long to wait after the first error. Default: "200ms".
---- `factor`: how much longer to wait after each further one. Default: 2.
---- `max_delay`: the longest wait. Default: "10s".
---- `timeout`: no new attempt begins after this long. Default: none.
---
---```lua
---local retry = require("std.retry")
---local page = retry.run({ attempts = 3 }, function() return box:run("cat /etc/hostname").stdout end)
---```
---@param options std.retry.run.Options
---@param work function
---@return any
---@overload fun(work: function): any
function retry.run(options, work) end

---@class (exact) std.retry.wait_for.Options
---@field timeout? Duration how long to wait. Default: "30s".
---@field interval? Duration how long to wait between two questions. Default: "200ms".
---@field what? string what is waited for, for the message. Default: "the condition".

---Waits until `condition` gives `true`. It is asked at once, and then again and again; an error in
---it is passed on.
---
---Options:
---- `timeout`: how long to wait. Default: "30s".
---- `interval`: how long to wait between two questions. Default: "200ms".
---- `what`: what is waited for, for the message. Default: "the condition".
---
---```lua
---local retry = require("std.retry")
---retry.wait_for({ what = "the user list" }, function() return box:exists("/etc/passwd") end)
---```
---@param options std.retry.wait_for.Options
---@param condition function
---@return any
---@overload fun(condition: function): any
function retry.wait_for(options, condition) end

return retry
