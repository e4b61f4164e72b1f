local box = sandbox("a")
box:mkdir("/data/deep", { mode = tonumber("700", 8) })
box:mkdir("/data/deep")
print(box:stat("/data/deep").mode == tonumber("700", 8))
