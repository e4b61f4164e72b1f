true
given
error: unknown option 'tty' of Builder.run()
  --> case.lua:8:39
   |
 8 | base("b", function(b) b:run("true", { tty = true }) end)
   |                                       ^^^
  in a function called at case.lua:8:1
  hint: there are: cwd, env, login, max_output, stdin, timeout, user, volatile
