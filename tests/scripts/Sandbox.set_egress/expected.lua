agent
allowlist (a.test)
0
allowlist (deny c.test, b.test)
none
error: egress: there is no policy or preset 'nothing'
  --> case.lua:10:5
    |
 10 | box:set_egress("nothing")
    |     ^^^^^^^^^^
  hint: there are: agent, ai, git, none, registries, unrestricted
