local seen = sandbox("seen")
local report = matrix("m", { axes = { n = { 1, 2, 3, 4, 5 } }, order = "given", parallel = 1 }, function(cell)
    open("seen"):run({ "sh", "-c", ("echo %d >> /tmp/order"):format(cell.n) })
end)
print(seen:read("/tmp/order"))
report = matrix("m", { axes = { n = { 1, 2, 3, 4, 5 } }, parallel = 1, max_fail = 2 }, function(cell)
    if cell.n > 1 then fail("no") end
end)
for _, cell in ipairs(report.cells) do print(cell.id .. " " .. cell.outcome) end
for _, wrong in ipairs({ { order = "longst" }, { max_fail = 0 }, { retries = -1 } }) do
    wrong.axes = { n = { 1 } }
    local ok, e = pcall(matrix, "m", wrong, function(cell) end)
    print(e)
end
