-- Compiles and tests a small C project over optimisation × standard × sanitizer, each combination
-- in a clone of its own.
--
--   sandscript run scripts/test_matrix.lua
--   sandscript run scripts/test_matrix.lua --list
--   sandscript run scripts/test_matrix.lua --filter sanitizer=address
--   sandscript run scripts/test_matrix.lua --set broken=true       one cell fails

local image = param("image", backend().default_image, "what the base starts from")
local broken = param("broken", false, "break one cell on purpose")

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

matrix("sample", {
    from = toolchain,
    axes = {
        optimisation = { "O0", "O2" },
        sanitizer = { "none", "address", "undefined" },
        standard = { "c99", "c17" },
    },
    timeout = "5m",
}, function(cell)
    local cc = { "cc", "-" .. cell.optimisation, "-std=" .. cell.standard, "-Wall", "-Wextra", "-Werror" }
    local function add(...)
        for _, word in ipairs({ ... }) do
            table.insert(cc, word)
        end
    end
    if cell.sanitizer ~= "none" then
        add("-fsanitize=" .. cell.sanitizer, "-fno-sanitize-recover=all")
    end
    if broken and cell.optimisation == "O2" and cell.sanitizer == "none" and cell.standard == "c17" then
        add("-DBREAK")
    end
    add("strmap.c", "strbuf.c", "tests.c", "-o", "tests")
    cell.sandbox:push("scripts/sample", "/opt/build/sample")
    local here = { cwd = "/opt/build/sample" }
    cell.sandbox:run(cc, here)
    cell.sandbox:run({ "./tests" }, here)
end)
