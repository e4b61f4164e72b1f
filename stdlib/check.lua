--- Assertions about a sandbox, for tests. Each fails with what there is instead.

local services = require("std.services")
local check = {}

local function ended(result)
  return result.code == nil and "signal " .. result.signal or "exit code " .. result.code
end

-- The end of what the command printed.
local function tail(result)
  local lines = {}
  for line in (result.stderr == "" and result.stdout or result.stderr):gmatch("[^\n]+") do
    lines[#lines + 1] = "\n" .. line
  end
  return table.concat(lines, "", math.max(#lines - 9, 1))
end

--- The command must return 0. Gives its result.
---
--- ```rhai
--- import "std/check" as check;
--- check::succeeds(box, "test -e /etc/passwd");
--- check::fails(box, "exit 3", 3);
--- check::prints(box, ["echo", "hello"], "hell");
--- check::file(box, "/etc/passwd", #{ contains: "root", mode: 0o644 });
--- check::no_file(box, "/etc/nothing");
--- check::throws(|| box.run("false"), "exit code 1");
--- ```
--- ```lua
--- local check = require("std.check")
--- check.succeeds(box, "test -e /etc/passwd")
--- check.fails(box, "exit 3", 3)
--- check.prints(box, { "echo", "hello" }, "hell")
--- check.file(box, "/etc/passwd", { contains = "root", mode = 420 })
--- check.no_file(box, "/etc/nothing")
--- check.throws(function() box:run("false") end, "exit code 1")
--- ```
function check.succeeds(box, command)
  local result = box:exec(command)
  if not result.ok then fail("the command must succeed, but: " .. ended(result) .. tail(result)) end
  return result
end

--- The command must not return 0. Gives its result.
function check.fails(box, command, code)
  local result = box:exec(command)
  if code == nil then
    if result.ok then fail("the command must fail, but it succeeds" .. tail(result)) end
  elseif result.code ~= code then
    fail("the command must end with exit code " .. code .. ", but: " .. ended(result) .. tail(result))
  end
  return result
end

--- The command must succeed, and its standard output must hold the text. Gives its result.
function check.prints(box, command, text)
  local result = check.succeeds(box, command)
  if not result.stdout:find(text, 1, true) then fail("the output lacks '" .. text .. "'" .. tail(result)) end
  return result
end

--- There must be a file at the path.
---
--- Options, each one more thing that must hold:
--- - `contains`: a text in it.
--- - `equals`: its whole text.
--- - `mode`: its mode, such as 0o644.
--- - `kind`: "file", "dir" or "symlink".
--- - `uid`, `gid`: whose it is.
function check.file(box, path, options)
  local o = check_options(options or {}, {}, { "contains", "equals", "mode", "kind", "uid", "gid" })
  if not box:exists(path) then fail("there must be a file " .. path) end
  local stat = box:stat(path)
  for _, key in ipairs({ "kind", "uid", "gid" }) do
    local wanted = rawget(o, key)
    if wanted ~= nil and stat[key] ~= wanted then
      fail(key .. " of " .. path .. " must be " .. wanted .. ", but is " .. stat[key])
    end
  end
  local mode, equals, contains = rawget(o, "mode"), rawget(o, "equals"), rawget(o, "contains")
  if mode and stat.mode ~= mode then
    fail(string.format("the mode of %s must be %o, but is %o", path, mode, stat.mode))
  end
  if equals then assert_eq(box:read(path), equals, "the text of " .. path) end
  if contains and not box:read(path):find(contains, 1, true) then fail(path .. " lacks '" .. contains .. "'") end
end

--- There must be nothing at the path.
function check.no_file(box, path)
  if box:exists(path) then fail("there must be nothing at " .. path) end
end

--- The text must hold the part.
function check.holds(text, part)
  if not text:find(part, 1, true) then fail("'" .. part .. "' must be in it, but it is:\n" .. text) end
end

--- The function must fail with an error; gives its message.
function check.throws(work, text)
  local ok, problem = pcall(work)
  if ok then fail("the function must fail, but it does not") end
  local kind = type(problem)
  local message = (kind == "userdata" or kind == "table") and tostring(problem.message) or tostring(problem)
  if text and not message:find(text, 1, true) then
    fail("the error must hold '" .. text .. "', but it is: " .. message)
  end
  return message
end

--- Something must listen on the TCP port of the sandbox, now.
function check.port(box, number)
  local ok, problem = pcall(services.wait_port, box, number, { timeout = "1s" })
  if ok then return end
  if problem.code ~= "assert" then error(problem, 0) end
  fail("nothing listens on port " .. number)
end

--- The service must run.
function check.service(box, name)
  if not services.running(box, name) then fail("the service '" .. name .. "' must run, but does not") end
end

return check
