local box = sandbox("a")
print(#box:snapshots())
box:snapshot("s1")
box:snapshot("s2")
for _, s in ipairs(box:snapshots()) do print(s.label) end
