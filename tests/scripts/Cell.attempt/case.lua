local report = matrix("m", { axes = { n = { 1, 2, 3 } }, retries = 2, backoff = "1ms" }, function(cell)
    if cell.sandbox:exists("/tmp/used") then fail("not a fresh sandbox") end
    cell.sandbox:write("/tmp/used", "")
    if cell.attempt < cell.n then fail(("attempt %d of cell %d"):format(cell.attempt, cell.n)) end
end)
print(report.ok)
print(("%d passed, %d flaky"):format(report.passed, report.flaky))
for _, cell in ipairs(report.cells) do
    print(("%s: %s at attempt %d; %s"):format(cell.id, cell.outcome, cell.attempts, cell.message or ""))
end
report = matrix("m", { axes = { n = { 1 } }, retries = 1 }, function(cell) fail(("attempt %d"):format(cell.attempt)) end)
local cell = report.cells[1]
print(("%s after %d: %s"):format(cell.outcome, cell.attempts, cell.message))
