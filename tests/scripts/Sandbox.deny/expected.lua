allowlist (*.b.test)
allowlist (deny x.b.test, *.b.test)
allowlist (*.b.test, x.b.test)
error: egress: nothing of 'a.test' is allowed, so there is nothing to deny
  --> case.lua:8:5
   |
 8 | box:deny("a.test")
   |     ^^^^
  hint: rules that allow something: "*.b.test", "x.b.test"
