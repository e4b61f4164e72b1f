--- Packages with apk, on Alpine Linux and its kin.
---
--- Works on a sandbox and, as one step, in the function of `base`. **No test runs this module's
--- commands**: neither Alpine Linux nor apk can be had where sandscript's tests run. They only see
--- that it says so where there is no apk.

local apk = {}

apk.INSTALL = [[# install packages with apk
set -e
if ! command -v apk >/dev/null; then
  echo 'there is no apk here: std/apk is for Alpine Linux and its kin' >&2; exit 127
fi
apk add --no-cache -- "$@"
]]

--- Installs packages.
---
--- ```rhai
--- import "std/apk" as apk;
--- let tools = base("tools", #{ from: "alpine.tar.gz", egress: "unrestricted" }, |b| {
---     apk::install(b, ["gcc", "make"]);
--- });
--- ```
--- ```lua
--- local apk = require("std.apk")
--- local tools = base("tools", { from = "alpine.tar.gz", egress = "unrestricted" }, function(b)
---   apk.install(b, { "gcc", "make" })
--- end)
--- ```
function apk.install(box, packages)
  local command = { "sh", "-c", apk.INSTALL, "apk" }
  for _, name in ipairs(packages) do command[#command + 1] = name end
  box:run(command)
end

--- Removes packages.
function apk.remove(box, packages)
  local command = { "apk", "del", "--" }
  for _, name in ipairs(packages) do command[#command + 1] = name end
  box:run(command)
end

--- The version of a package that is installed; nothing when it is not.
function apk.version(box, name)
  local found = box:exec({ "sh", "-c", "exec apk info -e -v -- $1", "apk", name })
  local line = found.stdout:match("^[^\n]*")
  if found.ok and line:sub(1, #name + 1) == name .. "-" then return line:sub(#name + 2) end
end

return apk
