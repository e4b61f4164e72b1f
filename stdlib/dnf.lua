--- Packages with dnf, on Fedora and its kin.
---
--- Works on a sandbox and, as one step, in the function of `base`.

local dnf = {}

dnf.INSTALL = [[# install packages with dnf
set -e
weak=$1; shift
if ! command -v dnf >/dev/null; then
  echo 'there is no dnf here: std/dnf is for Fedora and its kin' >&2; exit 127
fi
exec dnf -y -q install --setopt=install_weak_deps="$weak" -- "$@"
]]

--- Installs packages.
---
--- Options:
--- - `weak`: install what the packages recommend, too. Default: false.
---
--- ```rhai
--- import "std/dnf" as dnf;
--- let tools = base("tools", #{ from: "fedora.tar.gz", egress: "unrestricted" }, |b| {
---     dnf::install(b, ["gcc", "make"]);
--- });
--- ```
--- ```lua
--- local dnf = require("std.dnf")
--- local tools = base("tools", { from = "fedora.tar.gz", egress = "unrestricted" }, function(b)
---   dnf.install(b, { "gcc", "make" })
--- end)
--- ```
function dnf.install(box, packages, options)
  local o = check_options(options or {}, { weak = false })
  local command = { "sh", "-c", dnf.INSTALL, "dnf", o.weak and "True" or "False" }
  for _, name in ipairs(packages) do command[#command + 1] = name end
  box:run(command)
end

--- Removes packages.
function dnf.remove(box, packages)
  local command = { "dnf", "-y", "-q", "remove", "--" }
  for _, name in ipairs(packages) do command[#command + 1] = name end
  box:run(command)
end

--- The version and release of a package that is installed; nothing when it is not.
function dnf.version(box, name)
  local found = box:exec({ "sh", "-c", "exec rpm -q --qf '%{VERSION}-%{RELEASE}' -- $1", "dnf", name })
  if found.ok then return found.stdout end
end

--- Adds a source of packages: `text` is what stands in a `.repo` file.
function dnf.add_source(box, name, text)
  box:run({ "sh", "-c", [[# add a source of packages
mkdir -p /etc/yum.repos.d && printf '%s\n' "$2" >"/etc/yum.repos.d/$1.repo"
]], "dnf", name, text })
end

return dnf
