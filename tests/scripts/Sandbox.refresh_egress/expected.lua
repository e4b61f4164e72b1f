0
error: egress: the policy 'allowlist (a.test)' has no preset that could be looked up again
  --> case.lua:4:5
   |
 4 | box:refresh_egress()
   |     ^^^^^^^^^^^^^^
  hint: change its rules with allow and deny
