local box = sandbox("a")
print(box:exec("true").ok)
print(box:exec("false").ok)
