sandbox 'a'
running
[sandbox 'a', 1, "x"]
in a string: sandbox 'a' {a: 1.0}
me 3

{cpu: (), disk: (), inodes: (), memory: 1073741824, pids: ()}
already_exists
sandbox 'a' exists already
use open("a") to work with it, or choose another name
one
two
result of 'echo one; echo two': exit code 0
["one", "two"]
error: unknown option 'memmory' of sandbox()
  --> case.lua:22:16
    |
 22 | sandbox("b", { memmory = 1 })
    |                ^^^^^^^
  hint: did you mean 'memory'?
