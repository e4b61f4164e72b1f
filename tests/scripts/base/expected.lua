base 'cc'
0 of 3
3 of 3
cc
port = 80

cc
port = 80
more

error: 'cat /missing' failed in base 'wrong': exit code 1
  --> case.lua:18:29
    |
 18 | base("wrong", function(b) b:run("cat /missing") end)
    |                             ^^^
  in a function called at case.lua:18:1
