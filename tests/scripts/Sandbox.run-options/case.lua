local box = sandbox("a")
for _, wrong in ipairs({
    { cwd = "relative" }, { timeout = "soon" }, { timeout = true }, { env = { "A=1" } },
    { ["env"] = { ["A=B"] = "1" } }, { max_output = "1 parsec" }, { login = "yes" }, { time_out = 1 },
}) do
    local _, e = pcall(box.run, box, "true", wrong)
    print(e)
    print(e.hint or "")
end
for _, wrong in ipairs({ 1, { 1, 2 }, { cmd = "x" }, {}, "a\0b" }) do
    print(select(2, pcall(box.run, box, wrong)))
end
box:run()
