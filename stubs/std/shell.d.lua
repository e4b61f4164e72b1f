---@meta std.shell

-- Made by sandscript stubs; what you change here is lost.

---Text for the shell.
---
---A command that is a list needs none of this: it is delivered exactly as it is.
---@class std.shell
local shell = {}

---The text in quotes, so that the shell takes it as one word, whatever is in it.
---
---```lua
---local shell = require("std.shell")
---box:run("echo " .. shell.quote("it's $HOME") .. " | cat")
---```
---@param text string
---@return any
function shell.quote(text) end

---The words of a command, each in quotes, with spaces between them.
---
---```lua
---local shell = require("std.shell")
---box:run(shell.join({ "echo", "a b", "*" }) .. " > /tmp/words")
---```
---@param words string[]
---@return any
function shell.join(words) end

return shell
