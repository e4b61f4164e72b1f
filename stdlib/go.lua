--- Go.

local packages = require("std.packages")
local go = {}

--- Installs Go, with the sandbox's package manager.
function go.install(box)
  packages.install(box, { apt = { "golang-go" }, apk = { "go" }, dnf = { "golang" } })
end

--- The version of Go; nothing when there is none.
function go.version(box)
  local found = box:exec("go version")
  if found.ok then return (found.stdout:match("^go version go(%S+)")) end
end

--- Runs the program `go` in `folder` and gives its result: `args` are its verb and what follows.
--- Works in the function of `base`, too, as one step.
---
--- Options:
--- - `offline`: never reach for the network. Default: false.
--- - `env`: variables for it. Default: none.
---
--- ```rhai
--- import "std/go" as golang;
--- let built = base("app", #{ egress: "unrestricted" }, |b| {
---     b.copy("src", "/src");
---     golang::tool(b, "/src", ["build", "-o", "/opt/app", "."]);
--- });
--- ```
--- ```lua
--- local golang = require("std.go")
--- local built = base("app", { egress = "unrestricted" }, function(b)
---   b:copy("src", "/src")
---   golang.tool(b, "/src", { "build", "-o", "/opt/app", "." })
--- end)
--- ```
function go.tool(box, folder, args, options)
  local o = check_options(options or {}, { offline = false, env = {} })
  local env = {}
  for name, value in pairs(o.env) do env[name] = value end
  if o.offline then
    env.GOPROXY = "off"
    env.GOTOOLCHAIN = "local"
  end
  local command = { "go" }
  for _, word in ipairs(args) do command[#command + 1] = word end
  return box:run(command, { cwd = folder, env = env })
end

return go
