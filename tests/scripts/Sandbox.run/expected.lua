two

two  words *  $HOME

in
/tmp
root

command_failed
3
out

error: 'echo first >&2; echo second >&2; exit 4' failed: exit code 4
  first
  second
  --> case.lua:9:5
   |
 9 | box:run("echo first >&2; echo second >&2; exit 4")
   |     ^^^
  hint: exec() gives the result instead of an error
