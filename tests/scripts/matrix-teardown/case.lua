local report = matrix("m", {
    axes = { kind = { "body", "both", "fine", "setup", "skip", "slow", "teardown" } },
    timeout = "300ms",
    setup = function(cell)
        cell.sandbox:write("/tmp/steps", "setup ")
        if cell.kind == "setup" then fail("no setup") end
    end,
    teardown = function(cell)
        print(cell.kind .. ": " .. cell.sandbox:read("/tmp/steps"))
        if cell.kind == "teardown" or cell.kind == "both" then fail("no teardown") end
    end,
    parallel = 1,
}, function(cell)
    cell.sandbox:run("echo body >> /tmp/steps")
    if cell.kind == "skip" then skip("nothing to do") end
    if cell.kind == "body" or cell.kind == "both" then fail("no body") end
    if cell.kind == "slow" then sleep("60s") end
end)
for _, cell in ipairs(report.cells) do print(("%s: %s %s"):format(cell.id, cell.outcome, cell.message or "")) end
