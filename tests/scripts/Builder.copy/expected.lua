one

true
error: '../outside' lies outside the project folder PROJECT
  --> case.lua:8:25
   |
 8 | base("c", function(b) b:copy("../outside", "/x") end)
   |                         ^^^^
  in a function called at case.lua:8:1
  hint: allow it with --allow-path PROJECT/../outside
