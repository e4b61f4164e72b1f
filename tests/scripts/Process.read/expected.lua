error: Process has no property 'wat'
  --> case.lua:2:15
   |
 2 | print(process.wat)
   |               ^^^
  hint: did you mean 'wait'?
