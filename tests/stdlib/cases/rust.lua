local check = require("std.check")
local rust = require("std.rust")
local box = sandbox({
  mounts = { { source = "toolchain", target = "/toolchain", readonly = true } },
  env = { PATH = "/toolchain/bin:/usr/local/bin:/usr/bin:/bin" },
})
print(rust.version(box) ~= nil)
box:write("/src/Cargo.toml", "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2021\"\n", { parents = true })
box:write("/src/src/main.rs", "fn main() { println!(\"hello from rust\"); }\n", { parents = true })
rust.cargo(box, "/src", { "build", "-q" }, { offline = true })
print(box:run("/src/target/debug/app").stdout)
box:write("/src/src/main.rs", "fn main() { nothing(); }\n")
check.throws(function() rust.cargo(box, "/src", { "build", "-q" }, { offline = true }) end, "cannot find function")
