local process = sandbox("a"):spawn("echo one; echo two; echo bad >&2; printf three")
for line in process:lines() do print(line) end
for line in process:lines({ stream = "stderr" }) do print(line) end
for line in process:lines({ stream = "both" }) do print(line) end
