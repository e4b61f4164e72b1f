local check = require("std.check")
local box = sandbox()
box:write("/tmp/file", "one\ntwo\n", { mode = 416 })
check.succeeds(box, "true")
check.fails(box, "exit 3")
check.fails(box, "exit 3", 3)
check.prints(box, { "echo", "hello" }, "hell")
check.file(box, "/tmp/file")
check.file(box, "/tmp/file", { contains = "two", equals = "one\ntwo\n", mode = 416, kind = "file", uid = 0, gid = 0 })
check.no_file(box, "/tmp/nothing")
check.holds("one two", "two")
print(check.throws(function() box:run("false") end))
print(check.throws(function() fail("no luck") end, "luck"))
local wrong = {
  function() check.succeeds(box, "echo some; echo more >&2; exit 4") end,
  function() check.succeeds(box, "kill -9 $$") end,
  function() check.fails(box, "echo fine") end,
  function() check.fails(box, "exit 3", 4) end,
  function() check.prints(box, "echo a; echo b", "c") end,
  function() check.file(box, "/tmp/nothing") end,
  function() check.file(box, "/tmp/file", { mode = 384 }) end,
  function() check.file(box, "/tmp/file", { kind = "dir" }) end,
  function() check.file(box, "/tmp/file", { uid = 7 }) end,
  function() check.file(box, "/tmp/file", { contains = "three" }) end,
  function() check.file(box, "/tmp/file", { equals = "one" }) end,
  function() check.file(box, "/tmp/file", { owner = "ann" }) end,
  function() check.no_file(box, "/tmp/file") end,
  function() check.holds("one", "two") end,
  function() check.throws(function() return 1 end) end,
  function() check.throws(function() fail("no luck") end, "bad") end,
  function() check.port(box, 81) end,
  function() check.service(box, "nothing") end,
}
for _, one in ipairs(wrong) do
  local ok, e = pcall(one)
  if ok then print("it passed") else print(e.code .. ": " .. e.message) end
end
