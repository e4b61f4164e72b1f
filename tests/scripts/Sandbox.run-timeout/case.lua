local box = sandbox("a")
box:run("sleep 60", { timeout = "50ms" })
