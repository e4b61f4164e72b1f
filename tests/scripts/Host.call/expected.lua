unsupported
host().call() is not supported by backend 'fake' here
error: host().call() is not supported by backend 'fake' here
  --> case.lua:5:11
   |
 5 | nas:call("pool.query", { { { "name", "=", "tank" } }, { count = true } })
   |           ^^^^
  hint: it calls the methods of a NAS: use backend 'truenas'
