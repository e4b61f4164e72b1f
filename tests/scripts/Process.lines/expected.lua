one
two
three
bad
error: option 'stream' of Process.lines() must be "stdout" or "stderr", got string "both"
  --> case.lua:4:29
   |
 4 | for line in process:lines({ stream = "both" }) do print(line) end
   |                             ^^^^^^
