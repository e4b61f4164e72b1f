local report = matrix("targets", {
    axes = { target = { "a", "b", "@first", "c" } }, parallel = 1, order = "given",
    options = function(cell) return { backend = "fake", host = "cluster" } end,
}, function(cell) print(cell.id .. " is on " .. cell.sandbox:info().member) end)
for _, cell in ipairs(report.cells) do print(cell.id .. " " .. (cell.message or "")) end
local report = matrix("own", {
    axes = { n = { 1, 2 } }, parallel = 1, order = "given", target = "a",
    options = function(cell) if cell.n == 1 then return { backend = "fake", host = "cluster" } end return { backend = "fake", host = "cluster", target = "b" } end,
}, function(cell)
    print(cell.id .. " is on " .. cell.sandbox:info().member)
    print(sandbox("other" .. cell.n, { target = "@first" }):info().member)
    print(cell.sandbox:clone({ name = "twin" .. cell.n }):info().member)
    print(cell.sandbox:clone({ name = "far" .. cell.n, target = "@default" }):info().member ~= "")
end)
for _, wrong in ipairs({ { target = "a b" }, { target = "@" }, { target = "a" } }) do
    local ok, e = pcall(sandbox, "s", wrong)
    print(e)
end
local box = sandbox("here")
local ok, e = pcall(box.clone, box, { target = "a" })
print(e)
local ok, e = pcall(matrix, "m", { axes = { target = { 3 } } }, function(cell) end)
print(e)
print(box:info().member or "")
