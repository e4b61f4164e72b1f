--- Packages with whatever package manager the sandbox has: apt, apk or dnf.
---
--- Works on a sandbox and, as one step, in the function of `base`.

local apk = require("std.apk")
local apt = require("std.apt")
local dnf = require("std.dnf")
local shell = require("std.shell")
local packages = {}

--- The sandbox's package manager: "apt", "apk" or "dnf"; nothing when it has none of them.
function packages.manager(box)
  local ask = "for it in apt-get apk dnf; do command -v $it >/dev/null && echo $it && exit; done; true"
  local names = { ["apt-get\n"] = "apt", ["apk\n"] = "apk", ["dnf\n"] = "dnf" }
  return names[box:run(ask).stdout]
end

--- Installs packages: a list of names that are the same everywhere, or a map from "apt", "apk" and
--- "dnf" to the names there.
---
--- ```rhai
--- import "std/packages" as packages;
--- let tools = base("tools", #{ egress: "unrestricted" }, |b| {
---     packages::install(b, ["make"]);
---     packages::install(b, #{ apt: ["g++"], apk: ["g++"], dnf: ["gcc-c++"] });
--- });
--- ```
--- ```lua
--- local packages = require("std.packages")
--- local tools = base("tools", { egress = "unrestricted" }, function(b)
---   packages.install(b, { "make" })
---   packages.install(b, { apt = { "g++" }, apk = { "g++" }, dnf = { "gcc-c++" } })
--- end)
--- ```
function packages.install(box, packages)
  local names = { apt = packages, apk = packages, dnf = packages }
  if #packages == 0 and next(packages) ~= nil then
    names = check_options(packages, {}, { "apt", "apk", "dnf" })
  end
  local script, word = "# install packages\n", "if"
  for _, manager in ipairs({
    { "apt", "apt-get", "'true' 'false' ", apt.INSTALL },
    { "apk", "apk", "", apk.INSTALL },
    { "dnf", "dnf", "'False' ", dnf.INSTALL },
  }) do
    local wanted = rawget(names, manager[1])
    if wanted then
      local words = manager[3] .. shell.join(wanted)
      script = script .. word .. " command -v " .. manager[2] .. " >/dev/null; then\nset -- " .. words .. "\n" .. manager[4]
      word = "elif"
    end
  end
  if word == "if" then fail("no packages are named for any package manager") end
  script = script .. "else\necho 'no package manager for this is here' >&2; exit 127\nfi\n"
  box:run({ "sh", "-c", script, "packages" })
end

return packages
