error: '/tmp/f' is not UTF-8 text
  --> case.lua:3:5
   |
 3 | box:read("/tmp/f")
   |     ^^^^
  hint: read_bytes() gives it as bytes
