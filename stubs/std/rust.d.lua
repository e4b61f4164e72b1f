---@meta std.rust

-- Made by sandscript stubs; what you change here is lost.

---Rust and cargo.
---@class std.rust
local rust = {}

---Installs rustc and cargo, with the sandbox's package manager.
---@param box Sandbox|Builder
---@return any
function rust.install(box) end

---The version of rustc; nothing when there is none.
---@param box Sandbox|Builder
---@return any
function rust.version(box) end

---@class (exact) std.rust.cargo.Options
---@field offline? boolean never reach for the network. Default: false.
---@field env? table<string, any> variables for it. Default: none.

---Runs cargo in `folder` and gives its result: `args` are its verb and what follows. Works in the
---function of `base`, too, as one step.
---
---Options:
---- `offline`: never reach for the network. Default: false.
---- `env`: variables for it. Default: none.
---
---```lua
---local rust = require("std.rust")
---local built = base("app", { egress = "unrestricted" }, function(b)
---  b:copy("src", "/src")
---  rust.cargo(b, "/src", { "build", "--release" })
---end)
---```
---@param box Sandbox|Builder
---@param folder string
---@param args string[]
---@param options? std.rust.cargo.Options
---@return any
function rust.cargo(box, folder, args, options) end

return rust
