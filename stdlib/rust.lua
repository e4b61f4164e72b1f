--- Rust and cargo.

local packages = require("std.packages")
local rust = {}

--- Installs rustc and cargo, with the sandbox's package manager.
function rust.install(box)
  packages.install(box, {
    apt = { "rustc", "cargo" }, apk = { "rust", "cargo" }, dnf = { "rust", "cargo" },
  })
end

--- The version of rustc; nothing when there is none.
function rust.version(box)
  local found = box:exec("rustc --version")
  if found.ok then return (found.stdout:match("^%S+ (%S+)")) end
end

--- Runs cargo in `folder` and gives its result: `args` are its verb and what follows. Works in the
--- function of `base`, too, as one step.
---
--- Options:
--- - `offline`: never reach for the network. Default: false.
--- - `env`: variables for it. Default: none.
---
--- ```rhai
--- import "std/rust" as rust;
--- let built = base("app", #{ egress: "unrestricted" }, |b| {
---     b.copy("src", "/src");
---     rust::cargo(b, "/src", ["build", "--release"]);
--- });
--- ```
--- ```lua
--- local rust = require("std.rust")
--- local built = base("app", { egress = "unrestricted" }, function(b)
---   b:copy("src", "/src")
---   rust.cargo(b, "/src", { "build", "--release" })
--- end)
--- ```
function rust.cargo(box, folder, args, options)
  local o = check_options(options or {}, { offline = false, env = {} })
  local env = {}
  for name, value in pairs(o.env) do env[name] = value end
  if o.offline then env.CARGO_NET_OFFLINE = "true" end
  local command = { "cargo" }
  for _, word in ipairs(args) do command[#command + 1] = word end
  return box:run(command, { cwd = folder, env = env })
end

return rust
