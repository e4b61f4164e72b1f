error: lost contact: away: no answer
  --> case.lua:1:63
   |
 1 | matrix("m", { axes = { backend = { "fake" }, host = { "nas", "away" } } }, function(cell) print("it runs") end)
   |                                                               ^^^^
