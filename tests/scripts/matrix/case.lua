local cc = base("cc", function(b) b:write("/opt/base", "base") end)
local report = matrix("tests", {
    from = cc,
    axes = { db = { "sqlite", "postgres" }, n = { 1, 2 } },
    exclude = { { db = "postgres", n = 2 } },
    include = { { db = "mysql", n = 9 } },
    parallel = 2,
}, function(cell)
    assert_eq(cell.sandbox:read("/opt/base"), "base")
    cell.sandbox:run({ "echo", cell.db })
    if cell.db == "mysql" then cell.sandbox:run("echo broken >&2; exit 3") end
end)
print(report.ok)
print(report.passed .. " passed, " .. report.failed .. " failed of " .. report.total)
for _, cell in ipairs(report.cells) do
    print(cell.id .. ": " .. cell.outcome .. " " .. (cell.message or ""))
    if not cell.ok then print(cell.output) end
end
