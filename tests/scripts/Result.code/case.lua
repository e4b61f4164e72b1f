local box = sandbox("a")
print(box:exec("exit 7").code)
print(box:exec("kill -9 $$").code or "")
print(box:exec("true").cod)
