local box = sandbox("a")
box:mkdir("/data/sub")
box:write("/data/b", "12")
box:write("/data/a", "1")
for _, entry in ipairs(box:list("/data")) do print(entry.kind .. " " .. entry.name) end
box:list("/nowhere")
