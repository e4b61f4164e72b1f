hello there

error: standard input of process 2 'cat' is closed
  --> case.lua:7:9
   |
 7 | process:write("too late")
   |         ^^^^^
