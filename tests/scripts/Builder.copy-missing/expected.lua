error: file 'PROJECT/no-such-file' not found
  --> case.lua:2:7
   |
 2 |     b:copy("no-such-file", "/x")
   |       ^^^^
  in a function called at case.lua:1:1
  hint: host paths are relative to PROJECT
