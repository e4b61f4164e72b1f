local check = require("std.check")
local node = require("std.node")
local box = sandbox()
print(node.version(box) ~= nil)
box:write("/srv/lib/package.json", json_stringify({ name = "word", version = "1.0.0", main = "index.js" }), { parents = true })
box:write("/srv/lib/index.js", "module.exports = 'hello';")
box:write("/srv/app/package.json", json_stringify({
  name = "app", version = "1.0.0", dependencies = { word = "file:../lib" },
  scripts = { say = "node say.js" },
}), { parents = true })
box:write("/srv/app/say.js", "console.log(require('word'), ...process.argv.slice(2));")
node.dependencies(box, "/srv/app")
print(box:exists("/srv/app/package-lock.json"))
print(node.script(box, "/srv/app", "say").stdout)
-- With a lock file, from nothing.
box:remove("/srv/app/node_modules", { recursive = true })
node.dependencies(box, "/srv/app")
print(node.script(box, "/srv/app", "say", { "a b", "*" }).stdout)
check.throws(function() node.script(box, "/srv/app", "nothing") end, "nothing")
