local b = base("b", function(b) b:run("true") end)
print(open(b.sandbox):snapshots()[1].label == b.label)
