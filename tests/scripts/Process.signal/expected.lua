SIGTERM
error: signal: 'NOPE' is not a signal
  --> case.lua:5:7
   |
 5 | other:signal("NOPE")
   |       ^^^^^^
  hint: use a name such as "TERM" or a number from 1 to 64
