true
error: argument 'duration' of sleep(): 'a while' is not a duration
  --> case.lua:6:1
   |
 6 | sleep("a while")
   | ^^^^^
  hint: write it as "30s", "10m", "1h30m" or "250ms"
