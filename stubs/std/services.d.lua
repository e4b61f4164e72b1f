---@meta std.services

-- Made by sandscript stubs; what you change here is lost.

---Services: starting and stopping them, and waiting until they answer.
---
---Works with and without an init system. Where systemd or OpenRC runs in the sandbox, it is asked.
---Where none runs, as on the backend `local`, a service is started by its script in `/etc/init.d`,
---else by the `ExecStart` of its systemd unit, as the user that the unit names.
---
---Tests run it without an init system. The lines that ask systemd and OpenRC have no test: no image
---that the tests can get boots one of them on a backend that is there.
---@class std.services
local services = {}

---Starts a service. One that runs is fine.
---
---```lua
---local services = require("std.services")
---box:write("/etc/systemd/system/pages.service", "[Service]\nExecStart=python3 -m http.server 8000\n", { parents = true })
---services.start(box, "pages")
---services.wait_http(box, "http://127.0.0.1:8000/")
---services.stop(box, "pages")
---```
---@param box Sandbox|Builder
---@param name string
---@return any
function services.start(box, name) end

---Stops a service. One that does not run is fine.
---@param box Sandbox|Builder
---@param name string
---@return any
function services.stop(box, name) end

---Stops a service and starts it again.
---@param box Sandbox|Builder
---@param name string
---@return any
function services.restart(box, name) end

---Whether a service runs.
---@param box Sandbox|Builder
---@param name string
---@return any
function services.running(box, name) end

---@class (exact) std.services.wait_port.Options
---@field timeout? Duration how long to wait. Default: "30s".
---@field interval? number how many seconds to wait between two looks. Default: 0.1.
---@field host? any a host to ask instead of looking inside. Default: none.

---Waits until something listens on a TCP port of the sandbox, or of a host that it reaches.
---
---Options:
---- `timeout`: how long to wait. Default: "30s".
---- `interval`: how many seconds to wait between two looks. Default: 0.1.
---- `host`: a host to ask instead of looking inside. Default: none.
---@param box Sandbox|Builder
---@param port integer
---@param options? std.services.wait_port.Options
---@return any
function services.wait_port(box, port, options) end

---@class (exact) std.services.wait_http.Options
---@field status? any the status that the answer must have. Default: any from 200 to 399.
---@field contains? any a text that it must hold. Default: none.
---@field timeout? Duration how long to wait. Default: "30s".
---@field interval? number how many seconds to wait between two questions. Default: 0.2.
---@field tool? any the program that asks: "curl", "wget" or "python3". Default: the first that is there.

---Waits until a URL, asked for inside the sandbox, answers as it should.
---
---Options:
---- `status`: the status that the answer must have. Default: any from 200 to 399.
---- `contains`: a text that it must hold. Default: none.
---- `timeout`: how long to wait. Default: "30s".
---- `interval`: how many seconds to wait between two questions. Default: 0.2.
---- `tool`: the program that asks: "curl", "wget" or "python3". Default: the first that is there.
---@param box Sandbox|Builder
---@param url string
---@param options? std.services.wait_http.Options
---@return any
function services.wait_http(box, url, options) end

---@class (exact) std.services.wait_log.Options
---@field timeout? Duration how long to wait. Default: "30s".
---@field interval? number how many seconds to wait between two looks. Default: 0.1.

---Waits until a line of a file holds a text, and gives the line. The file may be missing at first.
---
---Options:
---- `timeout`: how long to wait. Default: "30s".
---- `interval`: how many seconds to wait between two looks. Default: 0.1.
---
---```lua
---local services = require("std.services")
---box:spawn("sleep 0.1; echo ready on port 80 > /tmp/log")
---print(services.wait_log(box, "/tmp/log", "ready"))
---```
---@param box Sandbox|Builder
---@param path string
---@param text string
---@param options? std.services.wait_log.Options
---@return any
function services.wait_log(box, path, text, options) end

---@class (exact) std.services.wait_line.Options
---@field timeout? Duration how long to wait. Default: "30s".
---@field stream? string "stdout" or "stderr". Default: "stdout".

---Waits until a process prints a line that holds a text, and gives the line.
---
---Options:
---- `timeout`: how long to wait. Default: "30s".
---- `stream`: "stdout" or "stderr". Default: "stdout".
---
---```lua
---local services = require("std.services")
---local server = box:spawn("echo starting; echo listening on 80; sleep 60")
---print(services.wait_line(server, "listening"))
---server:kill()
---```
---@param process Process
---@param text string
---@param options? std.services.wait_line.Options
---@return any
function services.wait_line(process, text, options) end

return services
