--- Users and groups of a sandbox.
---
--- Needs a sandbox that has more than one user id, which `backend().capabilities` calls "users".

local users = {}

local ADD = [[# add a user
set -e
name=$1 uid=$2 home=$3 shell=$4 system=$5 groups=$6
if command -v useradd >/dev/null; then
  set -- -m -U -s "$shell"
  if [ -n "$uid" ]; then set -- "$@" -u "$uid"; fi
  if [ -n "$home" ]; then set -- "$@" -d "$home"; fi
  if [ "$system" = true ]; then set -- "$@" -r; fi
  if [ -n "$groups" ]; then set -- "$@" -G "$groups"; fi
  useradd "$@" -- "$name"
elif command -v adduser >/dev/null; then
  set -- -D -s "$shell"
  if [ -n "$uid" ]; then set -- "$@" -u "$uid"; fi
  if [ -n "$home" ]; then set -- "$@" -h "$home"; fi
  if [ "$system" = true ]; then set -- "$@" -S; fi
  adduser "$@" "$name"
  for group in $(echo "$groups" | tr , ' '); do addgroup "$name" "$group"; done
else
  echo 'neither useradd nor adduser is here' >&2; exit 127
fi
]]

--- Adds a user with a home of its own and a group of the same name. Works in the function of `base`,
--- too, as one step.
---
--- Options:
--- - `uid`: its number. Default: the next that is free.
--- - `home`: its home. Default: "/home/NAME".
--- - `shell`: its shell. Default: "/bin/sh".
--- - `groups`: further groups that it is in; they must be there. Default: none.
--- - `system`: whether it is a user for a service. Default: false.
---
--- ```rhai
--- import "std/users" as users;
--- users::add(box, "ann", #{ uid: 1234 });
--- box.run("whoami", #{ user: "ann" });
--- ```
--- ```lua
--- local users = require("std.users")
--- users.add(box, "ann", { uid = 1234 })
--- box:run("whoami", { user = "ann" })
--- ```
function users.add(box, name, options)
  local o = check_options(options or {}, { uid = "", home = "", shell = "/bin/sh", groups = {}, system = false })
  local groups = table.concat(o.groups, ",")
  box:run({ "sh", "-c", ADD, "users", name, tostring(o.uid), o.home, o.shell, tostring(o.system), groups })
end

--- Adds a group. One that is there is fine.
function users.add_group(box, name)
  box:run({ "sh", "-c", [[# add a group
if command -v groupadd >/dev/null; then exec groupadd -f -- "$1"; fi
grep -q "^$1:" /etc/group || exec addgroup "$1"
]], "users", name })
end

--- Removes a user and its home.
function users.remove(box, name)
  box:run({ "sh", "-c", [[# remove a user
if command -v userdel >/dev/null; then exec userdel -r -- "$1" 2>&1; fi
exec deluser --remove-home "$1"
]], "users", name })
end

--- What is known about a user: uid, gid, home, shell, groups (their names); nothing when there is no
--- such user.
function users.info(box, name)
  if not box:exec({ "id", "-u", name }).ok then return nil end
  for line in box:read("/etc/passwd"):gmatch("[^\n]+") do
    local user, uid, gid, home, shell = line:match("^([^:]*):[^:]*:(%d+):(%d+):[^:]*:([^:]*):([^:]*)$")
    if user == name then
      local groups = {}
      for group in box:run({ "id", "-Gn", name }).stdout:gmatch("%S+") do groups[#groups + 1] = group end
      return {
        uid = math.tointeger(uid), gid = math.tointeger(gid), home = home, shell = shell, groups = groups,
      }
    end
  end
end

return users
