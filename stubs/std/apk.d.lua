---@meta std.apk

-- Made by sandscript stubs; what you change here is lost.

---Packages with apk, on Alpine Linux and its kin.
---
---Works on a sandbox and, as one step, in the function of `base`. **No test runs this module's
---commands**: neither Alpine Linux nor apk can be had where sandscript's tests run. They only see
---that it says so where there is no apk.
---@class std.apk
---@field INSTALL string
local apk = {}

---Installs packages.
---
---```lua
---local apk = require("std.apk")
---local tools = base("tools", { from = "alpine.tar.gz", egress = "unrestricted" }, function(b)
---  apk.install(b, { "gcc", "make" })
---end)
---```
---@param box Sandbox|Builder
---@param packages string[]
---@return any
function apk.install(box, packages) end

---Removes packages.
---@param box Sandbox|Builder
---@param packages string[]
---@return any
function apk.remove(box, packages) end

---The version of a package that is installed; nothing when it is not.
---@param box Sandbox|Builder
---@param name string
---@return any
function apk.version(box, name) end

return apk
