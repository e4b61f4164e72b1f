---@meta std.go

-- Made by sandscript stubs; what you change here is lost.

---Go.
---@class std.go
local go = {}

---Installs Go, with the sandbox's package manager.
---@param box Sandbox|Builder
---@return any
function go.install(box) end

---The version of Go; nothing when there is none.
---@param box Sandbox|Builder
---@return any
function go.version(box) end

---@class (exact) std.go.tool.Options
---@field offline? boolean never reach for the network. Default: false.
---@field env? table<string, any> variables for it. Default: none.

---Runs the program `go` in `folder` and gives its result: `args` are its verb and what follows.
---Works in the function of `base`, too, as one step.
---
---Options:
---- `offline`: never reach for the network. Default: false.
---- `env`: variables for it. Default: none.
---
---```lua
---local golang = require("std.go")
---local built = base("app", { egress = "unrestricted" }, function(b)
---  b:copy("src", "/src")
---  golang.tool(b, "/src", { "build", "-o", "/opt/app", "." })
---end)
---```
---@param box Sandbox|Builder
---@param folder string
---@param args string[]
---@param options? std.go.tool.Options
---@return any
function go.tool(box, folder, args, options) end

return go
