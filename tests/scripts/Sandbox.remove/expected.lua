path: '/data': directory not empty
false
error: file '/data' not found
  --> case.lua:7:5
   |
 7 | box:remove("/data")
   |     ^^^^^^
