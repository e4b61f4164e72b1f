logged
error: option 'level' of log() must be "debug" or "info" or "warn" or "error", got string "loud"
  --> case.lua:5:12
   |
 5 | log("x", { level = "loud" })
   |            ^^^^^
