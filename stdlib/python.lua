--- Python: the interpreter, virtual environments, packages.

local packages = require("std.packages")
local python = {}

local VENV = [[# make a virtual environment of Python
set -e
path=$1 requirements=$2 system=$3 count=$4; shift 4
if ! command -v python3 >/dev/null; then
  echo 'there is no python3 here: python.install() installs it' >&2; exit 127
fi
options=
if [ "$system" = true ]; then options=--system-site-packages; fi
if [ ! -x "$path/bin/python" ]; then python3 -m venv $options -- "$path"; fi
if [ -n "$requirements" ]; then set -- "$@" -r "$requirements"; fi
if [ "$count" -gt 0 ] || [ -n "$requirements" ]; then
  "$path/bin/python" -m pip install -q --disable-pip-version-check --no-input "$@"
fi
]]

--- Installs Python 3 with venv and pip, with the sandbox's package manager.
function python.install(box)
  packages.install(box, {
    apt = { "python3", "python3-venv", "python3-pip" },
    apk = { "python3", "py3-pip" },
    dnf = { "python3", "python3-pip" },
  })
end

--- The version of Python; nothing when there is none.
function python.version(box)
  local found = box:exec("python3 --version")
  if found.ok then return (found.stdout:match("^%S+ (%S+)")) end
end

--- Makes a virtual environment in the folder `path`, or adds to the one that is there. Its programs
--- are in `PATH/bin`. Works in the function of `base`, too, as one step.
---
--- Options:
--- - `packages`: the packages to install in it. Default: none.
--- - `requirements`: a file of the sandbox that lists packages. Default: none.
--- - `system`: let it see the packages of the system. Default: false.
--- - `args`: further arguments for pip, such as "--no-index". Default: none.
---
--- ```rhai
--- import "std/python" as python;
--- let app = base("app", #{ egress: "unrestricted" }, |b| {
---     python::venv(b, "/opt/venv", #{ packages: ["pytest==8.3.3"] });
--- });
--- ```
--- ```lua
--- local python = require("std.python")
--- local app = base("app", { egress = "unrestricted" }, function(b)
---   python.venv(b, "/opt/venv", { packages = { "pytest==8.3.3" } })
--- end)
--- ```
function python.venv(box, path, options)
  local o = check_options(options or {}, { packages = {}, requirements = "", system = false, args = {} })
  local command = { "sh", "-c", VENV, "python", path, o.requirements, tostring(o.system), tostring(#o.packages) }
  for _, list in ipairs({ o.args, o.packages }) do
    for _, word in ipairs(list) do command[#command + 1] = word end
  end
  box:run(command)
end

return python
