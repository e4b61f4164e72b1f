error: sandbox 'a' not found
  --> case.lua:4:1
   |
 4 | delete("a")
   | ^^^^^^
