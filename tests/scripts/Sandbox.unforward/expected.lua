0.0.0.0:9001 8080
127.0.0.1:9000 80
127.0.0.1:9000 80
port: 8080 of sandbox 'box' is not open
open are: 127.0.0.1:9000 -> 80
port: 80 of sandbox 'box' is not open at 127.0.0.1:9001
open are: 127.0.0.1:9000 -> 80
port: '0' is not a port
a port is a number from 1 to 65535
127.0.0.1:9000
error: port: 80 of sandbox 'other' is not open
  --> case.lua:24:7
    |
 24 | other:unforward(80)
    |       ^^^^^^^^^
  hint: it has no port open
