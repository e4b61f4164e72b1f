map
error: host() takes no arguments, got 1
  --> case.lua:3:1
   |
 3 | host(1)
   | ^^^^
  hint: it is host() -> Host
