error: the function takes 3 arguments, but gets only 2
  --> case.lua:3:9
   |
 3 | process:wait()
   |         ^^^^
