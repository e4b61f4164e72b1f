2
x

2
error: process 2 'sleep 60' timed out after 20ms
  --> case.lua:7:6
   |
 7 | slow:wait("20ms")
   |      ^^^^
  hint: it still runs; kill() ends it
