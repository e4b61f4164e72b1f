error: backend 'fak' not found
  --> case.lua:1:45
   |
 1 | matrix("m", { axes = { backend = { "fake", "fak" } } }, function(cell) print("it runs") end)
   |                                             ^^^
  hint: did you mean 'fake'?
