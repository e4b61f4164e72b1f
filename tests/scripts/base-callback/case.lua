local step = function(b) b:run("x") end
print(select(2, pcall(base, "cc")))
print(select(2, pcall(base, "cc", 5)))
print(select(2, pcall(base, "cc", { from = 5 }, step)))
print(select(2, pcall(base, "cc", { from = "x", image = "y" }, step)))
local _, e = pcall(base, "cc", { label = "x" }, step)
print(e)
print(e.hint)
base("cc", function(one, two) one:run("true") end)
