assert
the assertion does not hold
error: one is not more than two
  the assertion does not hold
  --> case.lua:6:1
   |
 6 | assert(1 > 2, "one is not more than two")
   | ^^^^^^
