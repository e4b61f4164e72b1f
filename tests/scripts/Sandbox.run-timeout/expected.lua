error: 'sleep 60' timed out after 50ms
  --> case.lua:2:5
   |
 2 | box:run("sleep 60", { timeout = "50ms" })
   |     ^^^
