net
1 cache
net
1 cache
2
1
error: option 'network' of matrix() must be a Network, or a list; each item a Network, got int 1
  --> case.lua:12:15
    |
 12 | matrix("m", { network = 1, axes = { n = { 1 } } }, function(cell) end)
    |               ^^^^^^^
