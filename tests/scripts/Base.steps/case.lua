local b = base("b", function(b) b:run("true") end)
print(b.steps)
