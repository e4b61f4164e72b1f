stopped
not_running
sandbox 'a' is not running
error: option 'grace' of Sandbox.stop(): 'soon' is not a duration
  --> case.lua:8:12
   |
 8 | box:stop({ grace = "soon" })
   |            ^^^^^
  hint: write it as "30s", "10m", "1h30m" or "250ms"
