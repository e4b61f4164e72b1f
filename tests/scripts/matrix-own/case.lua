local tools = base("tools", function(b) b:write("/opt/base", "tools") end)
local report = matrix("images", { axes = { from = { "debian/12", tools }, memory = { "64MiB", "128MiB" } }, parallel = 1, order = "given" }, function(cell)
    local info = cell.sandbox:info()
    print(cell.id .. " " .. info.image .. " " .. info.limits.memory .. " " .. tostring(cell.sandbox:exists("/opt/base")))
end)
report = matrix("function", {
    axes = { n = { 1, 2, 3, 4 } }, parallel = 2, order = "given", memory = "32MiB",
    options = function(cell)
        if cell.n == 1 then return { from = base("own", function(b) b:write("/opt/base", "own") end), weight = 9 } end
        if cell.n == 2 then return { from = "debian/12", memory = "256MiB", env = { WHO = "two" } } end
        if cell.n == 3 then return { from = tools, pids = 50 } end
        return {}
    end,
}, function(cell)
    local info = cell.sandbox:info()
    local base = cell.sandbox:exists("/opt/base") and cell.sandbox:read("/opt/base") or "none"
    local who = cell.sandbox:run("echo $WHO").stdout
    fail(("%s %s %s %s"):format(base, info.limits.memory, info.limits.pids or "", who))
end)
for _, cell in ipairs(report.cells) do print(cell.id .. " " .. cell.message) end
for _, wrong in ipairs({ { axes = { memory = { "much" } } }, { axes = { n = { 1 } }, options = function(cell) return { memmory = 3 } end }, { axes = { n = { 1 } }, options = function(cell) return 3 end }, { axes = { n = { 1 } }, options = function(cell) fail("no options") end }, { axes = { n = { tools } } } }) do
    local ok, e = pcall(matrix, "m", wrong, function(cell) end)
    print(e)
end
