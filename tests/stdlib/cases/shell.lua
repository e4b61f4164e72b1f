local shell = require("std.shell")
local box = sandbox()
local odd = { "", "a b", "it's", "$HOME `x` \\ \"", "*", "-n", "ünï" }
for _, word in ipairs(odd) do
  assert_eq(box:run("printf %s " .. shell.quote(word)).stdout, word)
end
print(shell.join({ "echo", "a b", "it's" }))
print(box:run("printf '[%s]' " .. shell.join(odd)).stdout)
