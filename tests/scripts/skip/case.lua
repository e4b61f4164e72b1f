local report = matrix("m", { axes = { db = { "mysql", "oracle", "sqlite" } } }, function(cell)
    if cell.db == "oracle" then skip("no licence") end
    if cell.db == "mysql" then
        pcall(skip)
        fail("it is skipped all the same")
    end
end)
print(report.ok)
print(("%d passed, %d skipped, %d failed"):format(report.passed, report.skipped, report.failed))
for _, cell in ipairs(report.cells) do print(("%s: %s %s"):format(cell.id, cell.outcome, cell.message or "")) end
local ok, e = pcall(skip, "too early")
print(e)
