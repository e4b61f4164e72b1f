local report = matrix("m", { axes = { db = { "mysql", "oracle", "sqlite" } }, retries = 2 }, function(cell)
    if cell.db ~= "sqlite" then expect_fail("not ported yet") end
    if cell.db == "mysql" then cell.sandbox:run("exit 3") end
end)
print(report.ok)
print(("%d passed, %d as expected, %d failed"):format(report.passed, report.expected_failure, report.failed))
for _, cell in ipairs(report.cells) do
    print(("%s: %s %d %s"):format(cell.id, cell.outcome, cell.attempts, cell.message or ""))
end
local ok, e = pcall(expect_fail, "too early")
print(e)
