hello
default
error: environment variable 'MISSING' is not set
  --> case.lua:3:7
   |
 3 | print(env("MISSING", nil))
   |       ^^^
  hint: set it, or give a default: env("MISSING", "")
