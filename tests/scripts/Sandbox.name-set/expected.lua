error: 'name' of Sandbox can't be set
  --> case.lua:2:5
   |
 2 | box.name = "b"
   |     ^^^^
  hint: copy it into a variable first, and change that
