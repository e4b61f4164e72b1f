assert
no luck
try again
5
error: no users
  --> case.lua:5:1
   |
 5 | fail("no users", "use another image")
   | ^^^^
  hint: use another image
