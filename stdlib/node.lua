--- Node.js and npm.

local packages = require("std.packages")
local node = {}

--- Installs Node.js and npm, with the sandbox's package manager.
function node.install(box)
  packages.install(box, { "nodejs", "npm" })
end

--- The version of Node.js, without the v; nothing when there is none.
function node.version(box)
  local found = box:exec("node --version")
  if found.ok then return (found.stdout:match("^v(%S+)")) end
end

--- Installs what the project in `folder` depends on: by `npm ci` where there is a lock file, else by
--- `npm install`. Works in the function of `base`, too, as one step.
---
--- ```rhai
--- import "std/node" as node;
--- box.write("/srv/package.json", json_stringify(#{ name: "a", version: "1.0.0", scripts: #{ hi: "echo hi" } }), #{ parents: true });
--- node::dependencies(box, "/srv");
--- print(node::script(box, "/srv", "hi").stdout);
--- ```
--- ```lua
--- local node = require("std.node")
--- box:write("/srv/package.json", json_stringify({ name = "a", version = "1.0.0", scripts = { hi = "echo hi" } }), { parents = true })
--- node.dependencies(box, "/srv")
--- print(node.script(box, "/srv", "hi").stdout)
--- ```
function node.dependencies(box, folder)
  box:run({ "sh", "-c", [[# install what a project depends on
cd "$1" && if [ -e package-lock.json ]; then verb=ci; else verb=install; fi
exec npm $verb --no-audit --no-fund --no-update-notifier
]], "node", folder })
end

--- Runs a script of the project in `folder`, with further arguments, and gives its result.
function node.script(box, folder, name, args)
  local command = { "npm", "run", "--silent", "--no-update-notifier", name, "--" }
  for _, word in ipairs(args or {}) do command[#command + 1] = word end
  return box:run(command, { cwd = folder })
end

return node
