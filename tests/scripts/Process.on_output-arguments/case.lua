local process = sandbox("a"):spawn("echo out")
process:on_output(function(line, stream, more) print(line) end)
process:wait()
