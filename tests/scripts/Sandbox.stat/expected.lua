file 3 0 0 f
/tmp/f
error: file '/tmp/g' not found
  --> case.lua:7:5
   |
 7 | box:stat("/tmp/g")
   |     ^^^^
