---@meta std.users

-- Made by sandscript stubs; what you change here is lost.

---Users and groups of a sandbox.
---
---Needs a sandbox that has more than one user id, which `backend().capabilities` calls "users".
---@class std.users
local users = {}

---@class (exact) std.users.add.Options
---@field uid? any its number. Default: the next that is free.
---@field home? string its home. Default: "/home/NAME".
---@field shell? string its shell. Default: "/bin/sh".
---@field groups? string|string[] further groups that it is in; they must be there. Default: none.
---@field system? boolean whether it is a user for a service. Default: false.

---Adds a user with a home of its own and a group of the same name. Works in the function of `base`,
---too, as one step.
---
---Options:
---- `uid`: its number. Default: the next that is free.
---- `home`: its home. Default: "/home/NAME".
---- `shell`: its shell. Default: "/bin/sh".
---- `groups`: further groups that it is in; they must be there. Default: none.
---- `system`: whether it is a user for a service. Default: false.
---
---```lua
---local users = require("std.users")
---users.add(box, "ann", { uid = 1234 })
---box:run("whoami", { user = "ann" })
---```
---@param box Sandbox|Builder
---@param name string
---@param options? std.users.add.Options
---@return any
function users.add(box, name, options) end

---Adds a group. One that is there is fine.
---@param box Sandbox|Builder
---@param name string
---@return any
function users.add_group(box, name) end

---Removes a user and its home.
---@param box Sandbox|Builder
---@param name string
---@return any
function users.remove(box, name) end

---What is known about a user: uid, gid, home, shell, groups (their names); nothing when there is no
---such user.
---@param box Sandbox|Builder
---@param name string
---@return any
function users.info(box, name) end

return users
