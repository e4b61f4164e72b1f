local process = sandbox("a"):spawn("echo first; sleep 60")
print(process:read_line("5s"))
process:read_line("20ms")
