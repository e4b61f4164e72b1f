error: 'condition' of assert() must be true or false, got int 1
  --> case.lua:1:1
   |
 1 | assert(1)
   | ^^^^^^
  hint: it is assert(condition: bool, message?: any)
