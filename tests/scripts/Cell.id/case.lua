matrix("m", { axes = { n = { 1 } } }, function(cell) print(cell.id) print(cell) end)
