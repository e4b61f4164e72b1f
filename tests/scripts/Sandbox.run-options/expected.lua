cwd: 'relative' is not an absolute path
start it with '/'
option 'timeout' of Sandbox.run(): 'soon' is not a duration
write it as "30s", "10m", "1h30m" or "250ms"
option 'timeout' of Sandbox.run() must be a duration such as "10m", or a number of seconds, got bool true

option 'env' of Sandbox.run() must be a map; each value a string, or a number, or true or false, or a Secret, got list ["A=1"]

env: 'A=B' can't be an environment variable

option 'max_output' of Sandbox.run(): '1 parsec' is not a size
write it as "512MiB", "2GB" or a number of bytes
option 'login' of Sandbox.run() must be true or false, got string "yes"

unknown option 'time_out' of Sandbox.run()
did you mean 'timeout'?
'command' of Sandbox.run() must be a command: a string for the shell, or a list of strings such as ["ls", "-l"], got int 1
'command' of Sandbox.run() must be a command: a string for the shell, or a list of strings such as ["ls", "-l"], got list [1, 2]
Sandbox.run() needs 'command': a command: a string for the shell, or a list of strings such as ["ls", "-l"]
command: there is no program in it
command: an argument holds a NUL byte
error: Sandbox.run() takes 1 or 2 arguments, got 0
  --> case.lua:13:5
    |
 13 | box:run()
    |     ^^^
  hint: it is Sandbox.run(command: string | list<string>, options?: map) -> Result
