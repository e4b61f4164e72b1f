-- timeout: 20s
-- Each waits for the other: both must be built at once.
local meeting = sandbox("meeting")
local function meet(own, other)
    meeting:write(own, "")
    while not meeting:exists(other) do sleep("5ms") end
end
local a = base("a", { lazy = true }, function(b) meet("/a", "/b") b:run("echo a > /name") end)
local b = base("b", { lazy = true }, function(b) meet("/b", "/a") b:run("echo b > /name") end)
build_bases({ a, b })
build_bases({})
print(sandbox({ from = a }):read("/name") .. sandbox({ from = b }):read("/name"))
