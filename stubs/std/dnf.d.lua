---@meta std.dnf

-- Made by sandscript stubs; what you change here is lost.

---Packages with dnf, on Fedora and its kin.
---
---Works on a sandbox and, as one step, in the function of `base`.
---@class std.dnf
---@field INSTALL string
local dnf = {}

---@class (exact) std.dnf.install.Options
---@field weak? boolean install what the packages recommend, too. Default: false.

---Installs packages.
---
---Options:
---- `weak`: install what the packages recommend, too. Default: false.
---
---```lua
---local dnf = require("std.dnf")
---local tools = base("tools", { from = "fedora.tar.gz", egress = "unrestricted" }, function(b)
---  dnf.install(b, { "gcc", "make" })
---end)
---```
---@param box Sandbox|Builder
---@param packages string[]
---@param options? std.dnf.install.Options
---@return any
function dnf.install(box, packages, options) end

---Removes packages.
---@param box Sandbox|Builder
---@param packages string[]
---@return any
function dnf.remove(box, packages) end

---The version and release of a package that is installed; nothing when it is not.
---@param box Sandbox|Builder
---@param name string
---@return any
function dnf.version(box, name) end

---Adds a source of packages: `text` is what stands in a `.repo` file.
---@param box Sandbox|Builder
---@param name string
---@param text string
---@return any
function dnf.add_source(box, name, text) end

return dnf
