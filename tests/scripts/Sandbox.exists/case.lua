local box = sandbox("a")
print(box:exists("/tmp"))
print(box:exists("/nope"))
