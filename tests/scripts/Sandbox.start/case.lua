local box = sandbox("a", { bare = true })
box:start()
box:start()
print(box.state)
