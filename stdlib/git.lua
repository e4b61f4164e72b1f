--- Repositories with git.

local packages = require("std.packages")
local git = {}

--- Installs git, with the sandbox's package manager.
function git.install(box)
  packages.install(box, { "git" })
end

--- The version of git; nothing when there is none.
function git.version(box)
  local found = box:exec("git --version")
  if found.ok then return (found.stdout:match("^%S+ %S+ (%S+)")) end
end

--- Clones a repository into the folder `path`. Works in the function of `base`, too.
---
--- Options:
--- - `branch`: the branch or tag to check out. Default: the repository's own.
--- - `depth`: how many commits of its history to get; 0 is all. Default: 0.
---
--- ```rhai
--- import "std/git" as git;
--- box.run("git init -q -b main /tmp/origin && cd /tmp/origin && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m one");
--- git::clone(box, "file:///tmp/origin", "/tmp/copy", #{ depth: 1 });
--- print(git::commit(box, "/tmp/copy"));
--- ```
--- ```lua
--- local git = require("std.git")
--- box:run("git init -q -b main /tmp/origin && cd /tmp/origin && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m one")
--- git.clone(box, "file:///tmp/origin", "/tmp/copy", { depth = 1 })
--- print(git.commit(box, "/tmp/copy"))
--- ```
function git.clone(box, url, path, options)
  local o = check_options(options or {}, { depth = 0 }, { "branch" })
  local command = { "git", "clone", "-q" }
  local function add(...)
    for _, word in ipairs({ ... }) do command[#command + 1] = word end
  end
  if rawget(o, "branch") then add("--branch", o.branch) end
  if o.depth > 0 then add("--depth", tostring(o.depth)) end
  add("--", url, path)
  box:run(command)
end

--- Checks out a branch, a tag or a commit.
function git.checkout(box, path, revision)
  box:run({ "git", "-C", path, "checkout", "-q", revision, "--" })
end

--- The commit that is checked out, as 40 digits or more.
function git.commit(box, path)
  return (box:run({ "git", "-C", path, "rev-parse", "HEAD" }).stdout:match("^[^\n]*"))
end

--- The files that are changed and not committed, as git's short status says.
function git.status(box, path)
  local lines = {}
  for line in box:run({ "git", "-C", path, "status", "--porcelain" }).stdout:gmatch("[^\n]+") do
    lines[#lines + 1] = line
  end
  return lines
end

return git
