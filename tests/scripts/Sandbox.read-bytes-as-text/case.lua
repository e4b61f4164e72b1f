local box = sandbox("a")
box:write("/tmp/f", "\xff\xff")
box:read("/tmp/f")
