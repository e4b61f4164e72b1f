print(seconds("1m30s"))
print(seconds("250ms"))
print(seconds(2))
local _, e = pcall(seconds, "soon") print(e.message)
