0 of 4
2 of 4
1
now
2
last

1
now
2
now
last

0
1
error: 'exit 3' failed in base 'b': exit code 3
  --> case.lua:22:1
    |
 22 | base("b", function(b) b:run("exit 3", { volatile = true }) end)
    | ^^^^
