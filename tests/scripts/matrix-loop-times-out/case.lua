local report = matrix("m", { axes = { n = { 1, 2 } }, timeout = "100ms" }, function(cell)
    while true do pcall(function() while true do end end) end
end)
print(report.timed_out)
