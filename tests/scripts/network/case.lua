local net = network("net")
local db = sandbox("db", { network = net })
local app = sandbox("app", { network = { net, network("other") } })
print(#db:info().networks .. " " .. app:info().networks[2])
-- A clone is in none but its own.
print(#app:clone({ name = "twin" }):info().networks)
print(app:clone({ name = "third", network = network("net") }):info().networks[1])
print(#net:members())
local function try(f, ...)
  local _, e = pcall(f, ...)
  print(e.message)
  if f == network then print(e.hint) end
end
try(sandbox, "x", { network = { net, network("net") } })
try(sandbox, "x", { network = "net" })
try(network, "my net")
base("b", { network = net }, function(b) end)
