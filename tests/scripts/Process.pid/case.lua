local process = sandbox("a"):spawn("sleep 60")
print(process.pid > 0)
