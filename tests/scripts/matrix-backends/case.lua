-- The tests' own opener knows fake on the machine "nas".
local tools = base("tools", { lazy = true }, function(b) b:run("echo tools > /name") end)
local here = base("here", function(b) b:run("true") end)
local boxed = sandbox("boxed")
local report = matrix("m", { axes = { backend = { "fake" }, host = { "nas" }, from = { tools, "fake", here, boxed } } }, function(cell)
    assert_eq(cell.host, "nas")
    if cell.from == "tools" then assert_eq(cell.sandbox:read("/name"), "tools\n") end
    -- Made where the cell is, and gone with it.
    local twin = cell.sandbox:clone()
    twin:write("/own", cell.id)
    assert_eq(twin:read("/own"), cell.id)
    -- What is elsewhere is worked with there.
    boxed:write("/from-" .. cell.from, cell.id)
end)
for _, cell in ipairs(report.cells) do print(cell.id .. ": " .. cell.outcome .. ": " .. (cell.message or "")) end
print(boxed:read("/from-tools"))
local report = matrix("some", { axes = { n = { 1, 2 } }, parallel = 1, options = function(cell) if cell.n == 2 then return { host = "nas" } else return {} end end }, function(cell)
    local count = 0
    for _, one in ipairs(sandboxes()) do if one.name == "boxed" then count = count + 1 end end
    print(cell.id .. ": " .. count)
end)
print(report.passed)
