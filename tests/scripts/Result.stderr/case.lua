local box = sandbox("a")
print(box:exec("echo e >&2").stderr)
