local process = sandbox("a"):spawn("echo out; sleep 0.02; echo err >&2")
local seen = {}
process:on_output(function(line, stream) table.insert(seen, stream .. ": " .. line) end)
print(process:wait().ok)
print(seen)
