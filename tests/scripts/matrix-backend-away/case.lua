matrix("m", { axes = { backend = { "fake" }, host = { "nas", "away" } } }, function(cell) print("it runs") end)
