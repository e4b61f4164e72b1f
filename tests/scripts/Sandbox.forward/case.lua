local box = sandbox("box")
print(box:forward(8080))
print(box:forward(8080))
print(box:forward(80, { at = 9000 }))
print(box:forward(80, { at = "0.0.0.0:9001" }))
print(box:forward(80, { at = "[::1]:9002" }))
for _, open in ipairs(box:info().ports) do print(open.at .. " " .. open.port) end

local other = sandbox("other")
local function try(...)
  local _, e = pcall(other.forward, other, ...)
  print(e.message)
  print(e.hint)
end
try(80, { at = 9000 })
try(0)
try(65536)
try(80, { at = 0 })
try(80, { at = "localhost:9000" })
other:stop()
try(80)

-- It ends with the sandbox, and a start does not open it again.
box:restart()
print(#box:info().ports)
other:start()
print(other:forward(80, { at = 9000 }))
box:forward("80")
