1 other
0
net
3
option 'network' of sandbox(): 'net' is given twice
option 'network' of sandbox() must be a Network, or a list; each item a Network, got string "net"
network: 'my net' is not a name of a network
use 1 to 63 of a-z, 0-9 and '-', starting with a letter and not ending in '-'
error: unknown option 'network' of base()
  --> case.lua:17:13
    |
 17 | base("b", { network = net }, function(b) end)
    |             ^^^^^^^
  hint: there are: cpu, cwd, devices, disk, egress, env, expires, from, image, inodes, label, lazy, memory, nesting, pids, sha256, user
