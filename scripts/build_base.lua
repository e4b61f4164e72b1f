-- Builds a base with a C compiler, and proves it: compiles and runs a program in a clone.
--
--   sandscript run scripts/build_base.lua
--   sandscript run scripts/build_base.lua --set image=./rootfs.tar.zst

local image = param("image", backend().default_image, "what the base starts from")

-- The compiler is installed only where it is missing: wherever Rust links, the image "host" has one.
local egress = "none"
for _, can in ipairs(backend().capabilities) do
    if can == "egress-unrestricted" and image ~= "host" then
        egress = "unrestricted"
    end
end

local toolchain = base("c-toolchain", { from = image, egress = egress }, function(b)
    b:run("command -v cc || (apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev)")
    b:run("cc --version | head -n 1 > /opt/compiler")
    b:run("mkdir -p /opt/build")
end)

local box <close> = sandbox({ from = toolchain })
box:write("/opt/build/hello.c", [[

#include <stdio.h>

int main(void) {
    puts("hello from a program that was compiled in a clone");
    return 0;
}
]])
box:run({ "cc", "-O2", "-Wall", "-Werror", "hello.c", "-o", "hello" }, { cwd = "/opt/build" })
local said = box:run({ "./hello" }, { cwd = "/opt/build" }).stdout
print((said:gsub("%s+$", "")))
local compiler = box:read("/opt/compiler"):gsub("%s+$", "")
print(("base %s has %s; %d of %d steps were cached"):format(toolchain.name, compiler, toolchain.hits, toolchain.steps))
