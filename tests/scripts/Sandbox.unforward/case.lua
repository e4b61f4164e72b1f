local box = sandbox("box")
local at = box:forward(8080)
box:forward(8080, { at = "0.0.0.0:9001" })
box:forward(80, { at = 9000 })
box:unforward(8080, { at = at })
for _, open in ipairs(box:info().ports) do print(open.at .. " " .. open.port) end
box:forward(8080)
box:unforward(8080)
for _, open in ipairs(box:info().ports) do print(open.at .. " " .. open.port) end
local function try(...)
  local _, e = pcall(box.unforward, box, ...)
  print(e.message)
  print(e.hint)
end
try(8080)
try(80, { at = 9001 })
try(0)

-- The place is free for another one.
box:unforward(80)
local other = sandbox("other")
print(other:forward(80, { at = 9000 }))
other:stop()
other:unforward(80)
