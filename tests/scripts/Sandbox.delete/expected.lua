0
running
a
error: sandbox 'a' not found
  --> case.lua:8:5
   |
 8 | box:run("true")
   |     ^^^
  hint: this script has deleted it; its handle is of no more use
