local box = sandbox("a")
print(box:exec("kill -9 $$").signal)
print(box:exec("true").signal or "")
