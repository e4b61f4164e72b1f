--- Packages with apt, on Debian, Ubuntu and their kin.
---
--- Works on a sandbox and, as one step, in the function of `base`. Where no init system runs,
--- services that a package brings are not started while it is installed; `std/services` starts them.

local apt = {}

apt.INSTALL = [[# install packages with apt
set -e
update=$1 recommends=$2; shift 2
if ! command -v apt-get >/dev/null; then
  echo 'there is no apt-get here: std/apt is for Debian, Ubuntu and their kin' >&2; exit 127
fi
export DEBIAN_FRONTEND=noninteractive
# The sandbox may have no other user to download as.
options='-y -q -o APT::Sandbox::User=root -o Dpkg::Use-Pty=0'
if [ "$recommends" != true ]; then options="$options --no-install-recommends"; fi
if [ "$update" = true ]; then apt-get update -q -o APT::Sandbox::User=root; fi
policy=/usr/sbin/policy-rc.d
if [ ! -d /run/systemd/system ] && [ ! -e /run/openrc/softlevel ] && [ ! -e $policy ]; then
  trap 'rm -f $policy' EXIT
  printf '#!/bin/sh\nexit 101\n' 2>/dev/null >$policy && chmod 755 $policy || :
fi
apt-get install $options -- "$@"
]]

--- Installs packages.
---
--- Options:
--- - `update`: read the package lists first. Default: true.
--- - `recommends`: install what the packages recommend, too. Default: false.
---
--- ```rhai
--- import "std/apt" as apt;
--- let tools = base("tools", #{ egress: "unrestricted" }, |b| {
---     apt::install(b, ["gcc", "make"]);
--- });
--- ```
--- ```lua
--- local apt = require("std.apt")
--- local tools = base("tools", { egress = "unrestricted" }, function(b)
---   apt.install(b, { "gcc", "make" })
--- end)
--- ```
function apt.install(box, packages, options)
  local o = check_options(options or {}, { update = true, recommends = false })
  local command = { "sh", "-c", apt.INSTALL, "apt", tostring(o.update), tostring(o.recommends) }
  for _, name in ipairs(packages) do command[#command + 1] = name end
  box:run(command)
end

--- Reads the package lists.
function apt.update(box)
  box:run({ "apt-get", "update", "-q", "-o", "APT::Sandbox::User=root" })
end

--- Removes packages. One that is not there is fine.
---
--- Options:
--- - `purge`: remove their configuration, too. Default: false.
function apt.remove(box, packages, options)
  local o = check_options(options or {}, { purge = false })
  local command = { "apt-get", o.purge and "purge" or "remove", "-y", "-q", "-o", "Dpkg::Use-Pty=0", "--" }
  for _, name in ipairs(packages) do command[#command + 1] = name end
  box:run(command, { env = { DEBIAN_FRONTEND = "noninteractive" } })
end

--- The version of a package that is installed; nothing when it is not.
function apt.version(box, name)
  local ask = "exec dpkg-query -W -f '${db:Status-Status} ${Version}' -- $1"
  local found = box:exec({ "sh", "-c", ask, "apt", name })
  if found.ok then return (found.stdout:match("^installed (.*)$")) end
end

--- Adds a source of packages: `line` is what stands in a `.list` file.
---
--- Options:
--- - `key`: the key that signs it, as text; `line` names it with
---   `[signed-by=/etc/apt/keyrings/NAME.asc]`.
function apt.add_source(box, name, line, options)
  local o = check_options(options or {}, {}, { "key" })
  box:run({ "sh", "-c", [[# add a source of packages
mkdir -p /etc/apt/sources.list.d /etc/apt/keyrings && printf '%s\n' "$2" >"/etc/apt/sources.list.d/$1.list" || exit
if [ -n "$3" ]; then printf '%s\n' "$3" >"/etc/apt/keyrings/$1.asc"; fi
]], "apt", name, line, rawget(o, "key") or "" })
end

return apt
