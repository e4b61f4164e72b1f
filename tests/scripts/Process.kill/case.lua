local process = sandbox("a"):spawn("sleep 60")
process:kill()
print(process:wait("5s").signal)
process:kill()
