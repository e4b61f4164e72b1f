-- In Lua the cells of a matrix take turns on one machine: what they capture, they share.
local seen = {}
local factor = 10
local count = 0
local helper = function(by) count = count + by return count end
local tools = { add = helper }
local report = matrix("m", { axes = { n = { 1, 2, 3, 4, 5, 6, 7, 8 } }, parallel = 8 }, function(cell)
    table.insert(seen, cell.n * factor)
    for _ = 1, 50 do helper(1) tools.add(1) end
end)
print(report.passed)
for _, cell in ipairs(report.cells) do if not cell.ok then print(cell.message) end end
table.sort(seen)
print(seen)
print(count)
