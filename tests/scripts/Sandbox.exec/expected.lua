result of 'echo out; echo err >&2; exit 5': exit code 5
5
out

err

false
false
127
error: the options of Sandbox.exec() must be a map, got string "false"
  --> case.lua:10:5
    |
 10 | box:exec("true", "false")
    |     ^^^^
  hint: it is Sandbox.exec(command: string | list<string>, options?: map) -> Result
