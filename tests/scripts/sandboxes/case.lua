print(#sandboxes())
sandbox("one")
sandbox("two")
for _, box in ipairs(sandboxes()) do print(box.name) end
