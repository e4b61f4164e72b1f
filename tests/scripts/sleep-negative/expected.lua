error: argument 'duration' of sleep(): -1 is not a duration
  --> case.lua:1:1
   |
 1 | sleep(-1)
   | ^^^^^
  hint: use a duration such as "10m", or a number of seconds
