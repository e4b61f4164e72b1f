9
true
["a", "b"]
1.5
none
8
parameter 'jobs' must be true or false, got '8'
its default is true
error: the script needs parameter 'must' (what it must be)
  --> case.lua:14:1
    |
 14 | param("must", nil, "what it must be")
    | ^^^^^
  hint: give it with --set must=VALUE
