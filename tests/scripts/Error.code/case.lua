local function code(f, ...)
    local _, e = pcall(f, ...)
    print(e.code)
end
code(open, "nowhere")
code(function() sandbox("a"):run("exit 1") end)
code(assert, false)
code(sandbox, "b", { cpuu = 1 })
code(sandbox, "b", { cpu = 0 })
