-- timeout: 20s
local function chain(at)
    -- A base of each call.
    return base("b" .. at, { lazy = true }, function(b) b:run("true") end)
end
local first = base("first", { lazy = true }, function(b) local inner = chain(1) sandbox({ from = inner }) b:run("true") end)
local second = base("second", { from = first, lazy = true }, function(b) sandbox({ from = first }) b:run("true") end)
build_bases({ second, first })
print("a base may need others in its function")
