net
network 'net'
error: Network has no property 'nmae'
  --> case.lua:4:11
   |
 4 | print(net.nmae)
   |           ^^^^
  hint: did you mean 'name'?
