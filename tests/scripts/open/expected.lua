scratch
3
error: sandbox 'scrathc' not found
  --> case.lua:5:1
   |
 5 | open("scrathc")
   | ^^^^
  hint: did you mean 'scratch'?
