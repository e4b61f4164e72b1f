base() takes 2 or 3 arguments, got 1
'steps' of base() must be a function that takes one argument (b), got int 5
option 'from' of base() must be a string, or a Base, or a Sandbox, got int 5
option 'image' of base(): 'from' is given, too
option 'label' of base(): there is no sandbox whose snapshot it could be
give the sandbox as from
error: the function takes 2 arguments, but gets only 1
  --> case.lua:9:1
   |
 9 | base("cc", function(one, two) one:run("true") end)
   | ^^^^
