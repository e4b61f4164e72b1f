---@meta std.git

-- Made by sandscript stubs; what you change here is lost.

---Repositories with git.
---@class std.git
local git = {}

---Installs git, with the sandbox's package manager.
---@param box Sandbox|Builder
---@return any
function git.install(box) end

---The version of git; nothing when there is none.
---@param box Sandbox|Builder
---@return any
function git.version(box) end

---@class (exact) std.git.clone.Options
---@field branch? any the branch or tag to check out. Default: the repository's own.
---@field depth? number how many commits of its history to get; 0 is all. Default: 0.

---Clones a repository into the folder `path`. Works in the function of `base`, too.
---
---Options:
---- `branch`: the branch or tag to check out. Default: the repository's own.
---- `depth`: how many commits of its history to get; 0 is all. Default: 0.
---
---```lua
---local git = require("std.git")
---box:run("git init -q -b main /tmp/origin && cd /tmp/origin && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m one")
---git.clone(box, "file:///tmp/origin", "/tmp/copy", { depth = 1 })
---print(git.commit(box, "/tmp/copy"))
---```
---@param box Sandbox|Builder
---@param url string
---@param path string
---@param options? std.git.clone.Options
---@return any
function git.clone(box, url, path, options) end

---Checks out a branch, a tag or a commit.
---@param box Sandbox|Builder
---@param path string
---@param revision string
---@return any
function git.checkout(box, path, revision) end

---The commit that is checked out, as 40 digits or more.
---@param box Sandbox|Builder
---@param path string
---@return any
function git.commit(box, path) end

---The files that are changed and not committed, as git's short status says.
---@param box Sandbox|Builder
---@param path string
---@return any
function git.status(box, path) end

return git
