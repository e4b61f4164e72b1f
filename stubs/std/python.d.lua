---@meta std.python

-- Made by sandscript stubs; what you change here is lost.

---Python: the interpreter, virtual environments, packages.
---@class std.python
local python = {}

---Installs Python 3 with venv and pip, with the sandbox's package manager.
---@param box Sandbox|Builder
---@return any
function python.install(box) end

---The version of Python; nothing when there is none.
---@param box Sandbox|Builder
---@return any
function python.version(box) end

---@class (exact) std.python.venv.Options
---@field packages? string|string[] the packages to install in it. Default: none.
---@field requirements? string|string[] a file of the sandbox that lists packages. Default: none.
---@field system? boolean let it see the packages of the system. Default: false.
---@field args? string|string[] further arguments for pip, such as "--no-index". Default: none.

---Makes a virtual environment in the folder `path`, or adds to the one that is there. Its programs
---are in `PATH/bin`. Works in the function of `base`, too, as one step.
---
---Options:
---- `packages`: the packages to install in it. Default: none.
---- `requirements`: a file of the sandbox that lists packages. Default: none.
---- `system`: let it see the packages of the system. Default: false.
---- `args`: further arguments for pip, such as "--no-index". Default: none.
---
---```lua
---local python = require("std.python")
---local app = base("app", { egress = "unrestricted" }, function(b)
---  python.venv(b, "/opt/venv", { packages = { "pytest==8.3.3" } })
---end)
---```
---@param box Sandbox|Builder
---@param path string
---@param options? std.python.venv.Options
---@return any
function python.venv(box, path, options) end

return python
