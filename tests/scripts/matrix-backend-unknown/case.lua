matrix("m", { axes = { backend = { "fake", "fak" } } }, function(cell) print("it runs") end)
