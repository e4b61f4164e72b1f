7

error: Result has no property 'cod'
  --> case.lua:4:24
   |
 4 | print(box:exec("true").cod)
   |                        ^^^
  hint: did you mean 'code'?
