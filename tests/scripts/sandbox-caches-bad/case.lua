for _, bad in ipairs({ { ["a/b"] = "/c" }, { a = "c" }, { a = "/proc" }, { a = "/x", b = "/x" }, { a = { share = true } }, { a = { path = "/c", share = 1 } } }) do
    local ok, error = pcall(sandbox, "a", { caches = bad })
    print(error.message)
end
matrix("m", { axes = { n = { 1 } }, caches = { a = "relative" } }, function(cell) end)
