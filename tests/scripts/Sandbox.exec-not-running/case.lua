local box = sandbox("a", { bare = true })
box:exec("true")
