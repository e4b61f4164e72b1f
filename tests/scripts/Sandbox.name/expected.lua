a
error: Sandbox has no property 'nam'
  --> case.lua:2:20
   |
 2 | print(sandbox("b").nam)
   |                    ^^^
  hint: did you mean 'name'?
