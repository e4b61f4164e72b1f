first
error: a line of process 2 'echo first; sleep 60' timed out after 20ms
  --> case.lua:3:9
   |
 3 | process:read_line("20ms")
   |         ^^^^^^^^^
