error: no luck
  --> case.lua:3:5
   |
 3 |     error({ message = "no luck", hint = "try again" })
   |     ^^^^^
  in a function called at case.lua:1:1
  hint: try again
