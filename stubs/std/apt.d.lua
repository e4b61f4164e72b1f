---@meta std.apt

-- Made by sandscript stubs; what you change here is lost.

---Packages with apt, on Debian, Ubuntu and their kin.
---
---Works on a sandbox and, as one step, in the function of `base`. Where no init system runs,
---services that a package brings are not started while it is installed; `std/services` starts them.
---@class std.apt
---@field INSTALL string
local apt = {}

---@class (exact) std.apt.install.Options
---@field update? boolean read the package lists first. Default: true.
---@field recommends? boolean install what the packages recommend, too. Default: false.

---Installs packages.
---
---Options:
---- `update`: read the package lists first. Default: true.
---- `recommends`: install what the packages recommend, too. Default: false.
---
---```lua
---local apt = require("std.apt")
---local tools = base("tools", { egress = "unrestricted" }, function(b)
---  apt.install(b, { "gcc", "make" })
---end)
---```
---@param box Sandbox|Builder
---@param packages string[]
---@param options? std.apt.install.Options
---@return any
function apt.install(box, packages, options) end

---Reads the package lists.
---@param box Sandbox|Builder
---@return any
function apt.update(box) end

---@class (exact) std.apt.remove.Options
---@field purge? boolean remove their configuration, too. Default: false.

---Removes packages. One that is not there is fine.
---
---Options:
---- `purge`: remove their configuration, too. Default: false.
---@param box Sandbox|Builder
---@param packages string[]
---@param options? std.apt.remove.Options
---@return any
function apt.remove(box, packages, options) end

---The version of a package that is installed; nothing when it is not.
---@param box Sandbox|Builder
---@param name string
---@return any
function apt.version(box, name) end

---@class (exact) std.apt.add_source.Options
---@field key? any the key that signs it, as text; `line` names it with `[signed-by=/etc/apt/keyrings/NAME.asc]`.

---Adds a source of packages: `line` is what stands in a `.list` file.
---
---Options:
---- `key`: the key that signs it, as text; `line` names it with
---  `[signed-by=/etc/apt/keyrings/NAME.asc]`.
---@param box Sandbox|Builder
---@param name string
---@param line string
---@param options? std.apt.add_source.Options
---@return any
function apt.add_source(box, name, line, options) end

return apt
