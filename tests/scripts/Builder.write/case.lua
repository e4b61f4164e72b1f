local written = base("b", function(b) b:write("/deep/er/file", "text", { mode = "600" }) end)
print(sandbox("a", { from = written }):read("/deep/er/file"))
