0
1
0
hello 2 a b c

file 'PROJECT/missing.sh' not found
runtime
error: 'fails.sh' failed in base 'b': exit code 7
  --> case.lua:18:25
    |
 18 | base("b", function(b) b:script("fails.sh") end)
    |                         ^^^^^^
  in a function called at case.lua:18:1
