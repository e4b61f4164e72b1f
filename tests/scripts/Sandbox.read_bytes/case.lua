local box = sandbox("a")
box:write("/tmp/f", "\xff\xff")
local bytes = box:read_bytes("/tmp/f")
print(bytes:byte(1))
