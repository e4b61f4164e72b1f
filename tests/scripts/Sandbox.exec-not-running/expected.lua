error: sandbox 'a' is not running
  --> case.lua:2:5
   |
 2 | box:exec("true")
   |     ^^^^
  hint: start it first: sandscript start a
