hello
there

there
'/tmp/f' in sandbox 'a' is larger than 3 B
path: 'relative' is not an absolute path in the sandbox
error: file '/tmp/missing' not found
  --> case.lua:7:5
   |
 7 | box:read("/tmp/missing")
   |     ^^^^
