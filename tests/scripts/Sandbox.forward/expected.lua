127.0.0.1:40000
127.0.0.1:40000
127.0.0.1:9000
0.0.0.0:9001
[::1]:9002
127.0.0.1:40000 8080
127.0.0.1:9000 80
0.0.0.0:9001 80
[::1]:9002 80
at: 127.0.0.1:9000 is a port of sandbox 'box' already
stop it: sandscript stop box; or leave the host's port out: then a free one is taken
port: '0' is not a port
a port is a number from 1 to 65535
port: '65536' is not a port
a port is a number from 1 to 65535
port: '0' is not a port
a port is a number from 1 to 65535
at: 'localhost:9000' is no place on this machine
write it as "9000", "127.0.0.1:9000", "[::1]:9000", or "0.0.0.0:9000" for all who reach this machine
sandbox 'other' is not running
start it first: sandscript start other
0
127.0.0.1:9000
error: 'port' of Sandbox.forward() must be a whole number, got string "80"
  --> case.lua:28:5
    |
 28 | box:forward("80")
    |     ^^^^^^^
  hint: it is Sandbox.forward(port: int, options?: map) -> string
