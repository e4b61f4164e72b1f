local outer = sandbox("outer")
local report = matrix("m", { from = outer, axes = { n = { 1, 2 } }, parallel = 1 }, function(cell)
    sandbox("helper-" .. cell.n):run("true")
    sandbox("kept-" .. cell.n, { keep = true })
    cell.sandbox:clone({ name = "twin-" .. cell.n })
end)
print(report.passed)
for _, box in ipairs(sandboxes()) do if not box.name:find("^m%-") then print(box.name) end end
