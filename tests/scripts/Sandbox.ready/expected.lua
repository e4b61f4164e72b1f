ready
error: sandbox 'a' is not running
  --> case.lua:6:5
   |
 6 | box:ready(1)
   |     ^^^^^
  hint: start it first: sandscript start a
