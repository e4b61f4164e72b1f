local box = sandbox("a")
box.name = "b"
