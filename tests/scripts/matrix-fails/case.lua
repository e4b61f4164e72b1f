local report = matrix("m", { axes = { kind = { "assert", "missing", "throw", "timeout", "typo" } }, timeout = "200ms" }, function(cell)
    local cases = {
        assert = function() assert_eq(1, 2, "numbers") end,
        missing = function() cell.sandbox:read("/missing") end,
        throw = function() error("thrown") end,
        timeout = function() cell.sandbox:run("sleep 60") end,
        typo = function() print(cell.kin) end,
    }
    cases[cell.kind]()
end)
for _, cell in ipairs(report.cells) do print(cell.id .. ": " .. cell.outcome .. ": " .. cell.message) end
