local check = require("std.check")
local services = require("std.services")
local box = sandbox()

-- A service that has nothing but a systemd unit.
box:write("/srv/www/index.html", "<p>hello</p>", { parents = true })
box:write("/etc/systemd/system/pages.service",
  "[Unit]\nDescription=x\n[Service]\nType=simple\nEnvironment=PYTHONUNBUFFERED=1\nWorkingDirectory=/srv/www\nExecStart=-python3 -m http.server 8000\n",
  { parents = true })
print(services.running(box, "pages"))
services.start(box, "pages")
services.start(box, "pages")
services.wait_port(box, 8000)
services.wait_port(box, 8000, { host = "127.0.0.1" })
check.port(box, 8000)
check.service(box, "pages")
print(services.wait_log(box, "/var/log/pages.log", "Serving HTTP"))
for _, tool in ipairs({ "", "curl", "wget", "python3" }) do
  services.wait_http(box, "http://127.0.0.1:8000/", { tool = tool, contains = "hello" })
  services.wait_http(box, "http://127.0.0.1:8000/nothing", { tool = tool, status = 404 })
end
local before = box:read("/run/pages.started")
services.restart(box, "pages")
services.wait_http(box, "http://127.0.0.1:8000/")
print(box:read("/run/pages.started") == before)

local function tried(work, ...)
  local ok, e = pcall(work, ...)
  if ok then print("it passed") else print(e.code .. ": " .. e.message) end
end
local soon = "300ms"
for _, tool in ipairs({ "curl", "wget", "python3" }) do
  tried(services.wait_http, box, "http://127.0.0.1:8000/nothing", { tool = tool, timeout = soon })
  tried(services.wait_http, box, "http://127.0.0.1:8000/", { tool = tool, timeout = soon, contains = "bye" })
  tried(services.wait_http, box, "http://127.0.0.1:8001/", { tool = tool, timeout = soon })
end
tried(services.wait_http, box, "http://127.0.0.1:8001/", { tool = "lynx" })
tried(services.wait_port, box, 8001, { timeout = soon })
tried(services.wait_port, box, 8001, { timeout = soon, host = "127.0.0.1" })
services.stop(box, "pages")
services.stop(box, "pages")
print(services.running(box, "pages"))
print(box:exists("/run/pages.started"))

-- One that ends at once, and one with a script.
box:write("/etc/systemd/system/broken.service", "[Service]\nExecStart=sh -c 'echo no luck; exit 3'\n")
tried(services.start, box, "broken")
box:write("/etc/init.d/old", "#!/bin/sh\necho $1 >> /tmp/old\n", { parents = true, mode = 493 })
services.start(box, "old")
services.stop(box, "old")
print(box:read("/tmp/old"))
tried(services.start, box, "nothing")
tried(services.running, box, "nothing")

-- Lines.
box:spawn("sleep 0.2; echo ready on port 80 > /tmp/log")
print(services.wait_log(box, "/tmp/log", "ready"))
tried(services.wait_log, box, "/tmp/log", "done", { timeout = soon })
tried(services.wait_log, box, "/tmp/never", "done", { timeout = soon })
local server = box:spawn("echo starting; echo listening on 80; sleep 60")
print(services.wait_line(server, "listening"))
tried(services.wait_line, server, "done", { timeout = soon })
server:kill()
tried(services.wait_line, server, "done")
