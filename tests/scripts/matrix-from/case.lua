local tools = base("tools", { lazy = true }, function(b) print("tools is built") b:run("echo tools > /name") end)
local bad = base("bad", { from = tools, lazy = true }, function(b) b:run("echo it is broken; exit 3") end)
local report = matrix("m", {
    axes = { kind = { "bad", "image", "late", "none", "throws", "tools" } },
    from = function(cell)
        if cell.kind == "bad" then return bad end
        if cell.kind == "image" then return "fake" end
        if cell.kind == "late" then return base(cell.kind, function(b) b:run("echo late > /name") end) end
        if cell.kind == "throws" then error("no idea") end
        if cell.kind == "tools" then return tools end
    end,
}, function(cell)
    if cell.kind == "late" or cell.kind == "tools" then assert_eq(cell.sandbox:read("/name"), cell.kind .. "\n") end
end)
for _, cell in ipairs(report.cells) do print(cell.id .. ": " .. cell.outcome .. " " .. cell.attempts .. ": " .. (cell.message or "") .. " " .. cell.output) end
local report = matrix("all", { from = bad, axes = { n = { 1, 2 } } }, function(cell) end)
print(report.failed)
matrix("wrong", { from = function(cell) return 5 end, axes = { n = { 1 } } }, function(cell) end)
