error: name: 'Not A Name' is not a sandbox name
  --> case.lua:1:1
   |
 1 | open("Not A Name")
   | ^^^^
  hint: use 1 to 63 of a-z, 0-9 and '-', starting with a letter and not ending in '-'
