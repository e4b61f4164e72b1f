one
two
1073741824
2.0
old
1

snapshot 'nope' not found
error: unknown option 'nme' of Sandbox.clone()
  --> case.lua:14:13
    |
 14 | box:clone({ nme = "x" })
    |             ^^^
  hint: did you mean 'name'?
