---@meta std.node

-- Made by sandscript stubs; what you change here is lost.

---Node.js and npm.
---@class std.node
local node = {}

---Installs Node.js and npm, with the sandbox's package manager.
---@param box Sandbox|Builder
---@return any
function node.install(box) end

---The version of Node.js, without the v; nothing when there is none.
---@param box Sandbox|Builder
---@return any
function node.version(box) end

---Installs what the project in `folder` depends on: by `npm ci` where there is a lock file, else by
---`npm install`. Works in the function of `base`, too, as one step.
---
---```lua
---local node = require("std.node")
---box:write("/srv/package.json", json_stringify({ name = "a", version = "1.0.0", scripts = { hi = "echo hi" } }), { parents = true })
---node.dependencies(box, "/srv")
---print(node.script(box, "/srv", "hi").stdout)
---```
---@param box Sandbox|Builder
---@param folder string
---@return any
function node.dependencies(box, folder) end

---Runs a script of the project in `folder`, with further arguments, and gives its result.
---@param box Sandbox|Builder
---@param folder string
---@param name string
---@param args? string[]
---@return any
function node.script(box, folder, name, args) end

return node
