local box = sandbox("a", { bare = true })
print(box.state)
box:start()
print(box.state)
