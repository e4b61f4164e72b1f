local nas = host()
local function try(body)
    local done, error = pcall(body)
    print(error.message)
end
try(function() nas:call() end)
try(function() nas:call("a", "b") end)
nas:call("a", { function() return 1 end })
