local box = sandbox("a")
local bytes = box:exec("printf abc").stdout_bytes
print(#bytes)
