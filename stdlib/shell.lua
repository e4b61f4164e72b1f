--- Text for the shell.
---
--- A command that is a list needs none of this: it is delivered exactly as it is.

local shell = {}

--- The text in quotes, so that the shell takes it as one word, whatever is in it.
---
--- ```rhai
--- import "std/shell" as shell;
--- box.run("echo " + shell::quote("it's $HOME") + " | cat");
--- ```
--- ```lua
--- local shell = require("std.shell")
--- box:run("echo " .. shell.quote("it's $HOME") .. " | cat")
--- ```
function shell.quote(text)
  return "'" .. tostring(text):gsub("'", "'\\''") .. "'"
end

--- The words of a command, each in quotes, with spaces between them.
---
--- ```rhai
--- import "std/shell" as shell;
--- box.run(shell::join(["echo", "a b", "*"]) + " > /tmp/words");
--- ```
--- ```lua
--- local shell = require("std.shell")
--- box:run(shell.join({ "echo", "a b", "*" }) .. " > /tmp/words")
--- ```
function shell.join(words)
  local quoted = {}
  for i, word in ipairs(words) do quoted[i] = shell.quote(word) end
  return table.concat(quoted, " ")
end

return shell
