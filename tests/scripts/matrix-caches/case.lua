matrix("m", {
    axes = { n = { 1, 2, 3 } }, parallel = 1, order = "given",
    caches = { log = { path = "/c", share = true } },
    options = function(cell)
        if cell.n == 3 then return { caches = { log = "/d", own = "/own" } } end
    end,
}, function(cell)
    cell.sandbox:run("echo " .. cell.n .. " > " .. (cell.n == 3 and "/d" or "/c") .. "/log" .. cell.n)
    for _, cache in ipairs(cell.sandbox:info().caches) do
        print(cell.n .. " " .. cache.name .. " " .. cache.path .. " " .. tostring(cache.share))
    end
end)
print(sandbox({ caches = { log = "/c" } }):run("cat /c/log1 /c/log2 /c/log3").stdout)
