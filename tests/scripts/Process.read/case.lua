local process = sandbox("a"):spawn("echo all of it")
print(process.wat)
