---@meta std.check

-- Made by sandscript stubs; what you change here is lost.

---Assertions about a sandbox, for tests. Each fails with what there is instead.
---@class std.check
local check = {}

---The command must return 0. Gives its result.
---
---```lua
---local check = require("std.check")
---check.succeeds(box, "test -e /etc/passwd")
---check.fails(box, "exit 3", 3)
---check.prints(box, { "echo", "hello" }, "hell")
---check.file(box, "/etc/passwd", { contains = "root", mode = 420 })
---check.no_file(box, "/etc/nothing")
---check.throws(function() box:run("false") end, "exit code 1")
---```
---@param box Sandbox|Builder
---@param command Command
---@return any
function check.succeeds(box, command) end

---The command must not return 0. Gives its result.
---
---The command must return this code. Gives its result.
---@param box Sandbox|Builder
---@param command Command
---@param code? integer
---@return any
function check.fails(box, command, code) end

---The command must succeed, and its standard output must hold the text. Gives its result.
---@param box Sandbox|Builder
---@param command Command
---@param text string
---@return any
function check.prints(box, command, text) end

---@class (exact) std.check.file.Options
---@field contains? any a text in it.
---@field equals? any its whole text.
---@field mode? any its mode, such as 0o644.
---@field kind? any "file", "dir" or "symlink".
---@field uid? any whose it is.
---@field gid? any whose it is.

---There must be a file at the path.
---
---Options, each one more thing that must hold:
---- `contains`: a text in it.
---- `equals`: its whole text.
---- `mode`: its mode, such as 0o644.
---- `kind`: "file", "dir" or "symlink".
---- `uid`, `gid`: whose it is.
---@param box Sandbox|Builder
---@param path string
---@param options? std.check.file.Options
---@return any
function check.file(box, path, options) end

---There must be nothing at the path.
---@param box Sandbox|Builder
---@param path string
---@return any
function check.no_file(box, path) end

---The text must hold the part.
---@param text string
---@param part string
---@return any
function check.holds(text, part) end

---The function must fail with an error; gives its message.
---
---The function must fail with an error whose message holds the text; gives the message.
---@param work function
---@param text? string
---@return any
function check.throws(work, text) end

---Something must listen on the TCP port of the sandbox, now.
---@param box Sandbox|Builder
---@param number integer
---@return any
function check.port(box, number) end

---The service must run.
---@param box Sandbox|Builder
---@param name string
---@return any
function check.service(box, name) end

return check
