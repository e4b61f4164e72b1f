base 'plain' has no snapshot point 'deps'
its steps make one with b.snapshot(…)
error: base 'app' has no snapshot point 'dep'
  --> case.lua:5:9
   |
 5 | app:at("dep")
   |         ^^^
  hint: did you mean 'deps'?
