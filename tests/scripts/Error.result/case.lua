local _, e = pcall(function() sandbox("a"):run("exit 9") end)
print(e.result.code)
_, e = pcall(open, "b")
print(e.result or "")
