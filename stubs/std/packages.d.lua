---@meta std.packages

-- Made by sandscript stubs; what you change here is lost.

---Packages with whatever package manager the sandbox has: apt, apk or dnf.
---
---Works on a sandbox and, as one step, in the function of `base`.
---@class std.packages
local packages = {}

---The sandbox's package manager: "apt", "apk" or "dnf"; nothing when it has none of them.
---@param box Sandbox|Builder
---@return any
function packages.manager(box) end

---Installs packages: a list of names that are the same everywhere, or a map from "apt", "apk" and
---"dnf" to the names there.
---
---```lua
---local packages = require("std.packages")
---local tools = base("tools", { egress = "unrestricted" }, function(b)
---  packages.install(b, { "make" })
---  packages.install(b, { apt = { "g++" }, apk = { "g++" }, dnf = { "gcc-c++" } })
---end)
---```
---@param box Sandbox|Builder
---@param packages string[]
---@return any
function packages.install(box, packages) end

return packages
