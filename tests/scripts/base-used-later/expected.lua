error: base 'cc' is finished
  --> case.lua:3:6
   |
 3 | kept:run("true")
   |      ^^^
  hint: its steps belong into the function that base() is called with
