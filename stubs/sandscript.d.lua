---@meta sandscript

-- Made by sandscript stubs; what you change here is lost.

---A number of seconds, or a string such as "250ms", "5m", "1h30m".
---@alias Duration number|string

---A number of bytes, or a string such as "512MiB", "2GB".
---@alias Size integer|string

---A string for the shell, or a list of strings that is delivered exactly as it is.
---@alias Command string|string[]

---@class Sandbox
---@field name string Its name.
---@field state string Its state: "running", "stopped", "frozen", "transitional" or "error".
local Sandbox = {}

---All that is known about it: name, state, image, fingerprint, hostname, created, used, source, limits, mounts, caches, egress, networks (their names), env, user, cwd, labels, run, expires, addresses, ports (its own, each with where it is reached: port and at).
---
---- error `not_found`: It is not there any more.
---
---```lua
---print(box:info().image)
---```
---@return table<string, any>
function Sandbox:info() end

---Starts it and waits until a command has run. A running one is left as it is; a frozen one is thawed.
---
---- error `not_found`: It is not there any more.
---
---```lua
---box:start()
---```
function Sandbox:start() end

---@class (exact) Sandbox.stop.Options
---@field grace? Duration How long its processes get to end by themselves. Default: 10s.
---@field force? boolean Kill them at once. Default: false.

---Stops it. A stopped one is left as it is.
---
---- error `not_found`: It is not there any more.
---
---```lua
---box:stop({ grace = "2s" })
---```
---@param options? Sandbox.stop.Options
function Sandbox:stop(options) end

---@class (exact) Sandbox.restart.Options
---@field grace? Duration How long its processes get to end by themselves. Default: 10s.
---@field force? boolean Kill them at once. Default: false.

---Stops and starts it.
---
---- error `not_found`: It is not there any more.
---
---```lua
---box:restart()
---```
---@param options? Sandbox.restart.Options
function Sandbox:restart(options) end

---@class (exact) Sandbox.delete.Options
---@field missing_ok? boolean Do nothing when it is gone. Default: false.

---Deletes it with its snapshots. Clones of it live on.
---
---- error `not_found`: It is not there any more.
---
---```lua
---box:delete()
---```
---@param options? Sandbox.delete.Options
function Sandbox:delete(options) end

---Waits until a command has run in it.
---
---- error `not_found`: It is not there any more.
---- error `not_running`: It does not run.
---- error `timeout`: It took longer than timeout.
---
---```lua
---box:ready("30s")
---```
---@param timeout? Duration How long. Default: 60s.
function Sandbox:ready(timeout) end

---Lets its processes stand still.
---
---- error `not_found`: It is not there any more.
---- error `not_running`: It does not run.
---
---```lua
---box:freeze()
---```
function Sandbox:freeze() end

---Lets them go on.
---
---- error `not_found`: It is not there any more.
---- error `not_running`: It does not run.
---
---```lua
---box:freeze()
---box:thaw()
---```
function Sandbox:thaw() end

---Keeps it when the run ends.
---
---- error `not_found`: It is not there any more.
---
---```lua
---box:keep()
---```
function Sandbox:keep() end

---What it may reach, as it was set: policy ("none", "allowlist", "unrestricted" or the name of a preset), rules (its own, in order), preset and preset_rules (what the preset stood for when it was set). The first rule that matches decides; what none matches is refused.
---
---- error `not_found`: It is not there any more.
---
---```lua
---print(box:egress().policy)
---```
---@return table<string, any>
function Sandbox:egress() end

---Replaces what it may reach, all of it, at once. Connections that the new policy does not allow are cut.
---
---- error `not_found`: It is not there any more.
---- error `invalid_input`: It is no policy, or the profile forbids it.
---- error `unsupported`: The backend can't enforce it; the old one stays.
---
---```lua
---box:set_egress({ "deny tracker.example.com", "*.example.com:443" })
---```
---@param policy string|string[]|table<string, any> "none", "unrestricted", the name of a preset, a list of rules, or #{ preset, allow, deny }.
function Sandbox:set_egress(policy) end

---Allows what a rule matches, from now on and beside all that is allowed already. What is allowed stays so.
---
---- error `not_found`: It is not there any more.
---- error `invalid_input`: It is no rule, or the profile forbids it.
---
---```lua
---box:allow("example.com:443")
---```
---@param rule string|string[] A name, *.name, or a network, with :PORT or :FIRST-LAST and tcp:// or udp:// where that matters; or a list of rules.
function Sandbox:allow(rule) end

---Closes what a rule matches, at once: a rule of that text is taken away, what others allow of it is denied. Open connections are cut.
---
---- error `not_found`: It is not there any more.
---- error `invalid_input`: It is no rule, or nothing of it is allowed.
---
---```lua
---box:allow("example.com")
---box:deny("example.com")
---```
---@param rule string|string[] As allow() takes it.
function Sandbox:deny(rule) end

---Looks up again what the preset of its policy stands for, and asks the tools of what it was made from again where they fetch from; what happened in it since does not count. Gives what changed: "+ rule" and "- rule".
---
---- error `not_found`: It is not there any more.
---- error `invalid_input`: Its policy has no preset.
---
---```lua
---box:set_egress("git")
---print(#box:refresh_egress())
---```
---@return string[]
function Sandbox:refresh_egress() end

---What it was refused and what it reached: refused (how many connections), denied (host, name, address, port, protocol, process, reason, count, first, last, and the rule that would allow it) and carried (host, connections, sent, received).
---
---- error `not_found`: It is not there any more.
---
---```lua
---for _, one in ipairs(box:egress_log().denied) do print(one.rule) end
---```
---@return table<string, any>
function Sandbox:egress_log() end

---@class (exact) Sandbox.forward.Options
---@field at? integer|string Where on this machine: a port (9000), an address ("0.0.0.0" is for everybody who reaches this machine) or both ("127.0.0.1:9000"). Default: a free port, for this machine only.

---Opens a port of this machine for one that its programs listen on, and says where it is reached, such as "127.0.0.1:40123". It is open under every egress policy, opens nothing outward, and ends with the sandbox: at a stop, a restart, a restore or a delete. A port that is open for it already is told again.
---
---- error `invalid_input`: It is no port, or no place that can be had on this machine.
---- error `not_found`: It is not there any more.
---- error `not_running`: It does not run.
---- error `unsupported`: The backend can't.
---
---```lua
---print("http://" .. box:forward(8080))
---```
---@param port integer The port that its programs listen on.
---@param options? Sandbox.forward.Options
---@return string
function Sandbox:forward(port, options) end

---@class (exact) Sandbox.unforward.Options
---@field at? integer|string Where on this machine, as forward() takes and gives it. Default: wherever it is open.

---Closes what forward() has opened for a port, and cuts what is connected there: at one place of this machine, or wherever it is open.
---
---- error `invalid_input`: It is no port, or it is not open.
---- error `not_found`: It is not there any more.
---- error `unsupported`: The backend can't.
---
---```lua
---local at = box:forward(8080)
---box:unforward(8080, { at = at })
---```
---@param port integer The port that its programs listen on.
---@param options? Sandbox.unforward.Options
function Sandbox:unforward(port, options) end

---@class (exact) Sandbox.run.Options
---@field env? table<string, string|number|boolean|Secret> Added to its environment.
---@field cwd? string Working directory; the user's home when not given.
---@field user? string User name or number, with optional :group.
---@field login? boolean Source the user's profile first. Default: false.
---@field stdin? string|Secret What it reads from standard input; nothing when not given.
---@field timeout? Duration Kill it and all it started after this long.
---@field tty? boolean Attach a terminal: stdout and stderr are then one. Default: false.
---@field max_output? Size How much of each output stream is kept. Default: 64MiB.

---Runs a command to its end. One that does not return 0 is an error that shows the end of its output.
---
---- error `command_failed`: It does not return 0.
---- error `not_found`: It is not there any more.
---- error `not_found`: The program of a list is not there.
---- error `not_running`: It does not run.
---- error `timeout`: It took longer than timeout.
---
---```lua
---box:run("echo hello > greeting", { cwd = "/tmp", timeout = "5m" })
---box:run({ "cat", "/tmp/greeting" })
---```
---@param command Command A string is run by sh -c, a list is delivered exactly as it is.
---@param options? Sandbox.run.Options
---@return Result
function Sandbox:run(command, options) end

---@class (exact) Sandbox.exec.Options
---@field env? table<string, string|number|boolean|Secret> Added to its environment.
---@field cwd? string Working directory; the user's home when not given.
---@field user? string User name or number, with optional :group.
---@field login? boolean Source the user's profile first. Default: false.
---@field stdin? string|Secret What it reads from standard input; nothing when not given.
---@field timeout? Duration Kill it and all it started after this long.
---@field tty? boolean Attach a terminal: stdout and stderr are then one. Default: false.
---@field max_output? Size How much of each output stream is kept. Default: 64MiB.

---Runs a command to its end and gives its result, whatever it is.
---
---- error `not_found`: It is not there any more.
---- error `not_found`: The program of a list is not there.
---- error `not_running`: It does not run.
---- error `timeout`: It took longer than timeout.
---
---```lua
---local found = box:exec({ "test", "-e", "/etc/passwd" }).ok
---```
---@param command Command A string is run by sh -c, a list is delivered exactly as it is.
---@param options? Sandbox.exec.Options
---@return Result
function Sandbox:exec(command, options) end

---@class (exact) Sandbox.spawn.Options
---@field env? table<string, string|number|boolean|Secret> Added to its environment.
---@field cwd? string Working directory; the user's home when not given.
---@field user? string User name or number, with optional :group.
---@field login? boolean Source the user's profile first. Default: false.
---@field stdin? string|Secret What it reads from standard input; nothing when not given.
---@field timeout? Duration Kill it and all it started after this long.
---@field tty? boolean Attach a terminal: stdout and stderr are then one. Default: false.
---@field max_output? Size How much of each output stream is kept. Default: 64MiB.
---@field detached? boolean Let it live on when the run ends. Default: false.

---Starts a command and goes on. It lives until it ends, its sandbox stops or the run ends.
---
---- error `not_found`: It is not there any more.
---- error `not_found`: The program of a list is not there.
---- error `not_running`: It does not run.
---
---```lua
---local server = box:spawn("sleep 60")
---print(server.running)
---```
---@param command Command A string is run by sh -c, a list is delivered exactly as it is.
---@param options? Sandbox.spawn.Options
---@return Process
function Sandbox:spawn(command, options) end

---@class (exact) Sandbox.read.Options
---@field offset? Size First byte. Default: 0.
---@field length? Size How many bytes at most; to the end when not given.
---@field max? Size A larger file is an error. Default: 64MiB.

---Reads a text file.
---
---- error `not_found`: It is not there any more.
---- error `not_found`: There is nothing at the path.
---- error `runtime`: The file is no text, or larger than max.
---
---```lua
---local users = box:read("/etc/passwd")
---```
---@param path string An absolute path in the sandbox.
---@param options? Sandbox.read.Options
---@return string
function Sandbox:read(path, options) end

---@class (exact) Sandbox.read_bytes.Options
---@field offset? Size First byte. Default: 0.
---@field length? Size How many bytes at most; to the end when not given.
---@field max? Size A larger file is an error. Default: 64MiB.

---Reads a file as bytes.
---
---- error `not_found`: It is not there any more.
---- error `not_found`: There is nothing at the path.
---
---```lua
---local head = box:read_bytes("/etc/passwd", { length = 4 })
---```
---@param path string An absolute path in the sandbox.
---@param options? Sandbox.read_bytes.Options
---@return string
function Sandbox:read_bytes(path, options) end

---@class (exact) Sandbox.write.Options
---@field mode? integer|string Permission bits, such as 0o755 or "755".
---@field owner? string Owner: "user" or "user:group".
---@field parents? boolean Make missing folders above it. Default: false.

---Replaces a file at once: a reader sees the old content or the new one. Mode and owner of a file that is there stay, unless they are given.
---
---- error `not_found`: It is not there any more.
---- error `not_found`: The folder of the path is not there.
---
---```lua
---box:write("/etc/motd", "hello\n", { mode = "644" })
---```
---@param path string An absolute path in the sandbox.
---@param content string|Secret Text or bytes.
---@param options? Sandbox.write.Options
function Sandbox:write(path, content, options) end

---The entries of a folder, by name; each a map as stat() gives it.
---
---- error `not_found`: It is not there any more.
---- error `not_found`: There is nothing at the path.
---
---```lua
---for _, entry in ipairs(box:list("/etc")) do print(entry.name) end
---```
---@param path string An absolute path in the sandbox.
---@return (table<string, any>)[]
function Sandbox:list(path) end

---What is known about a file: name, kind ("file", "dir", "symlink", "other"), size, mode, uid, gid, modified, target. A link is not followed.
---
---- error `not_found`: It is not there any more.
---- error `not_found`: There is nothing at the path.
---
---```lua
---print(box:stat("/etc/passwd").size)
---```
---@param path string An absolute path in the sandbox.
---@return table<string, any>
function Sandbox:stat(path) end

---Whether there is something at the path. A link is not followed.
---
---- error `not_found`: It is not there any more.
---
---```lua
---if not box:exists("/opt/tool") then box:write("/opt/tool", "") end
---```
---@param path string An absolute path in the sandbox.
---@return boolean
function Sandbox:exists(path) end

---@class (exact) Sandbox.remove.Options
---@field recursive? boolean Delete a folder with all in it. Default: false.
---@field missing_ok? boolean Do nothing when it is not there. Default: false.

---Deletes a file, a link, or an empty folder.
---
---- error `not_found`: It is not there any more.
---- error `not_found`: There is nothing at the path.
---
---```lua
---box:mkdir("/tmp/work")
---box:remove("/tmp/work", { recursive = true })
---```
---@param path string An absolute path in the sandbox.
---@param options? Sandbox.remove.Options
function Sandbox:remove(path, options) end

---@class (exact) Sandbox.mkdir.Options
---@field mode? integer|string Permission bits, such as 0o755 or "755".
---@field owner? string Owner: "user" or "user:group".

---Makes a folder and those above it. One that is there is fine.
---
---- error `not_found`: It is not there any more.
---
---```lua
---box:mkdir("/opt/app/data")
---```
---@param path string An absolute path in the sandbox.
---@param options? Sandbox.mkdir.Options
function Sandbox:mkdir(path, options) end

---@class (exact) Sandbox.push.Options
---@field all? boolean Copy what ignore files name, too. Default: false.
---@field exclude? string[] Patterns of what is left out, as in .gitignore.
---@field mode? integer|string Permission bits of a single file.
---@field owner? string Owner in the sandbox; root when not given.

---Copies a host file or folder into the sandbox. What is in a folder comes to lie in the folder `to`; a file becomes `to`, or lies in it when `to` ends in '/'. Mode, time and links are kept; what ignore files such as .gitignore name is left out.
---
---- error `not_found`: It is not there any more.
---- error `runtime`: The host path is not in the project folder.
---
---```lua
---box:push("src", "/src", { exclude = { "*.o" } })
---```
---@param from string A host path, relative to the project folder.
---@param to string An absolute path in the sandbox.
---@param options? Sandbox.push.Options
function Sandbox:push(from, to, options) end

---Copies a file or folder of the sandbox to the host. What is in a folder comes to lie in the folder `to`; a file becomes `to`, or lies in it when that is a folder.
---
---- error `not_found`: It is not there any more.
---- error `not_found`: There is nothing at the path.
---- error `runtime`: The host path is not in the project folder.
---
---```lua
---box:pull("/etc/passwd", "out/passwd")
---```
---@param from string An absolute path in the sandbox.
---@param to string A host path, relative to the project folder.
function Sandbox:pull(from, to) end

---@class (exact) Sandbox.snapshot.Options
---@field labels? table<string, string|number|boolean> Labels of your own, kept with it.
---@field expires? Duration After this long gc or the server deletes it. Default: never.

---Takes a snapshot; the sandbox goes on as it was. Gives label, created, size, frozen (seconds that its processes stood still), labels and expires.
---
---- error `already_exists`: There is one with that label.
---- error `not_found`: It is not there any more.
---
---```lua
---box:snapshot("clean")
---```
---@param label string The snapshot's label: A-Z, a-z, 0-9, '.', '_' and '-'.
---@param options? Sandbox.snapshot.Options
---@return table<string, any>
function Sandbox:snapshot(label, options) end

---Its snapshots, oldest first; each a map as snapshot() gives it.
---
---- error `not_found`: It is not there any more.
---
---```lua
---for _, s in ipairs(box:snapshots()) do print(s.label) end
---```
---@return (table<string, any>)[]
function Sandbox:snapshots() end

---@class (exact) Sandbox.delete_snapshot.Options
---@field missing_ok? boolean Do nothing when there is none. Default: false.

---Deletes a snapshot. Clones of it live on.
---
---- error `not_found`: There is none with that label.
---
---```lua
---box:delete_snapshot("clean", { missing_ok = true })
---```
---@param label string The snapshot's label: A-Z, a-z, 0-9, '.', '_' and '-'.
---@param options? Sandbox.delete_snapshot.Options
function Sandbox:delete_snapshot(label, options) end

---@class (exact) Sandbox.restore.Options
---@field discard_newer? boolean Allow a backend that can't do otherwise to delete newer snapshots. Default: false.

---Takes the sandbox back to a snapshot, any of them. One that ran is running again. Newer snapshots stay.
---
---- error `not_found`: There is none with that label.
---
---```lua
---box:snapshot("clean")
---box:run("echo broken > /etc/motd")
---box:restore("clean")
---```
---@param label string The snapshot's label: A-Z, a-z, 0-9, '.', '_' and '-'.
---@param options? Sandbox.restore.Options
function Sandbox:restore(label, options) end

---@class (exact) Sandbox.clone.Options
---@field name? string The new sandbox's name. Made up when not given.
---@field cpu? number CPUs it may use, such as 0.5 or 2.
---@field memory? Size Memory it may use.
---@field pids? integer How many processes it may have.
---@field disk? Size How much it may write to disk.
---@field inodes? integer How many files it may create.
---@field caches? table<string, string|table<string, any>> Folders that outlive it and are in no snapshot: by name the path, or #{ path, share }. One that is not shared is waited for while another sandbox that runs has it.
---@field devices? table<string, table<string, any>> Devices of the machine's in it, by name; of a clone, beside its source's.
---@field nesting? boolean Let containers run in it, which weakens what keeps it in. Default: false; a clone is as its source.
---@field hostname? string Its host name; the sandbox's name when not given.
---@field egress? string|string[]|table<string, any> What it may reach: "none", "unrestricted", a preset such as "agent", a list of rules, or #{ preset, allow, deny }. Default: nothing; of a clone, what its source may.
---@field network? Network|Network[] Networks that it is in, a network or a list: it reaches the others in them by name, whatever egress says. Default: none, of a clone, too.
---@field env? table<string, string|number|boolean> Environment of every command in it.
---@field labels? table<string, string|number|boolean> Labels of your own, kept with it.
---@field keep? boolean Keep it when the run ends. Default: false.
---@field expires? Duration After this long gc may delete it.
---@field bare? boolean Leave it stopped. Default: false.
---@field target? string Where in a cluster: a member's name, or @ and a group's, of which the cluster picks a member. Default: where the cluster puts it; a clone is beside its source.

---Makes a new machine from a snapshot or from the current state. It keeps the limits, environment and egress policy, and is deleted when the run ends, unless it is kept. The source keeps running.
---
---- error `already_exists`: There is a sandbox of that name.
---- error `not_found`: There is no snapshot with that label.
---
---```lua
---box:snapshot("clean")
---local twin <close> = box:clone("clean", { name = "twin" })
---```
---@param label? string The snapshot; the current state when not given.
---@param options? Sandbox.clone.Options
---@return Sandbox
---@overload fun(self: Sandbox, options: Sandbox.clone.Options): Sandbox
function Sandbox:clone(label, options) end

---@class Network
---@field name string Its name.
local Network = {}

---The sandboxes in it that run, by name.
---
---```lua
---for _, one in ipairs(network("net"):members()) do print(one.name) end
---```
---@return Sandbox[]
function Network:members() end

---@class Result
---@field code integer? The exit code; nothing when a signal ended the command.
---@field signal string? The signal that ended the command, such as "SIGKILL"; else nothing.
---@field stdout string Standard output as text; bytes that are no text are replaced.
---@field stdout_bytes string Standard output as it was.
---@field stderr string Standard error as text; bytes that are no text are replaced.
---@field ok boolean Whether the command returned 0.
---@field duration number How long it took, in seconds.
---@field truncated boolean Whether output was cut off at max_output.
local Result = {}

---@class Process
---@field pid integer? Its process id in the sandbox, when known.
---@field running boolean Whether it has not ended yet.
local Process = {}

---Writes to its standard input.
---
---- error `runtime`: Its standard input is closed.
---
---```lua
---process:write("hello\n")
---```
---@param data string|Secret Text or bytes.
function Process:write(data) end

---Ends its standard input.
---
---```lua
---process:close_stdin()
---```
function Process:close_stdin() end

---@class (exact) Process.lines.Options
---@field stream? "stdout"|"stderr" Which stream. Default: stdout.

---Its output line by line, as it comes; use it in a for loop.
---
---```lua
---local make = box:spawn("echo one; echo two")
---for line in make:lines() do print(line) end
---```
---@param options? Process.lines.Options
---@return Lines
function Process:lines(options) end

---@class (exact) Process.read_line.Options
---@field stream? "stdout"|"stderr" Which stream. Default: stdout.

---Waits for the next line of its output; nothing when there is no more.
---
---- error `timeout`: It took longer than timeout.
---
---```lua
---process:write("hello\n")
---local greeting = process:read_line("5s")
---```
---@param timeout? Duration How long to wait; as long as it takes when not given.
---@param options? Process.read_line.Options
---@return string?
---@overload fun(self: Process, options: Process.read_line.Options): string?
function Process:read_line(timeout, options) end

---@class (exact) Process.read.Options
---@field stream? "stdout"|"stderr" Which stream. Default: stdout.

---Waits for output and gives what is there; nothing when there is no more.
---
---```lua
---process:write("hello\n")
---print(process:read())
---```
---@param options? Process.read.Options
---@return string?
function Process:read(options) end

---Calls a function for each line of its output as it comes, one after the other. An error in it comes out of wait().
---
---```lua
---process:on_output(function(line, stream) print(stream .. ": " .. line) end)
---```
---@param callback fun(line: string, stream: string) Gets the line and "stdout" or "stderr".
function Process:on_output(callback) end

---Sends it a signal.
---
---- error `not_running`: It does not run.
---
---```lua
---process:signal("HUP")
---```
---@param signal string|integer "TERM" or 15.
function Process:signal(signal) end

---Kills it and all it started.
---
---```lua
---process:kill()
---```
function Process:kill() end

---Ends its standard input, waits for its end and gives its result, with the output that nobody has read.
---
---- error `timeout`: It took longer than timeout.
---
---```lua
---local result = process:wait("1m")
---```
---@param timeout? Duration How long to wait; as long as it takes when not given.
---@return Result
function Process:wait(timeout) end

---@class Lines
---@overload fun(): string?
local Lines = {}

---The next line without its end; nothing when there is no more.
---
---```lua
---local line = box:spawn("echo one"):lines():next()
---```
---@return string?
function Lines:next() end

---@class Builder
local Builder = {}

---@class (exact) Builder.run.Options
---@field env? table<string, string|number|boolean|Secret> Added to its environment.
---@field cwd? string Working directory; the user's home when not given.
---@field user? string User name or number, with optional :group.
---@field login? boolean Source the user's profile first. Default: false.
---@field stdin? string|Secret What it reads from standard input; nothing when not given.
---@field timeout? Duration Kill it and all it started after this long.
---@field max_output? Size How much of each output stream is kept. Default: 64MiB.
---@field volatile? boolean Run it each time the base is asked for; the steps after it are cached as if it were not there. Default: false.

---A step that runs a command, which must return 0.
---
---- error `command_failed`: It does not return 0.
---- error `timeout`: It took longer than timeout.
---
---```lua
---b:run("echo built > version", { cwd = "/opt" })
---```
---@param command Command A string is run by sh -c, a list is delivered exactly as it is.
---@param options? Builder.run.Options
function Builder:run(command, options) end

---@class (exact) Builder.script.Options
---@field args? string[] Its arguments.
---@field env? table<string, string|number|boolean|Secret> Added to its environment.
---@field cwd? string Working directory; the user's home when not given.
---@field user? string User name or number, with optional :group.
---@field login? boolean Source the user's profile first. Default: false.
---@field stdin? string|Secret What it reads from standard input; nothing when not given.
---@field timeout? Duration Kill it and all it started after this long.
---@field max_output? Size How much of each output stream is kept. Default: 64MiB.
---@field volatile? boolean Run it each time the base is asked for; the steps after it are cached as if it were not there. Default: false.

---A step that runs a script of the host inside, which must return 0. It is run by what its first line names, else by sh, and is not there any more afterwards.
---
---- error `command_failed`: It does not return 0.
---- error `not_found`: The host path is not there.
---- error `runtime`: The host path is not in the project folder.
---- error `timeout`: It took longer than timeout.
---
---```lua
---b:script("setup.sh", { args = { "--quick" } })
---```
---@param path string A host path, relative to the project folder.
---@param options? Builder.script.Options
function Builder:script(path, options) end

---@class (exact) Builder.fetch.Options
---@field mode? integer|string Permission bits, such as 0o755 or "755".
---@field owner? string Owner in the base; root when not given.

---A step that puts a file from a URL into the base. The host fetches it, so the base needs no network inside; it counts by its digest, wherever it comes from.
---
---- error `invalid_input`: It has another digest.
---- error `not_found`: There is nothing at the URL.
---- error `transport`: The download failed.
---
---```lua
---b:fetch("file://requirements.txt", "7cc4959877dbe6b6c63a8eb1bfe3bfb545fa8fe5b28b1b2c13e4a7c1c0d1c4d4", "/opt/")
---```
---@param url string An https:, http: or file: URL.
---@param sha256 string The digest that its bytes must have, in hex.
---@param to string An absolute path in the base; a folder when it ends in /.
---@param options? Builder.fetch.Options
function Builder:fetch(url, sha256, to, options) end

---@class (exact) Builder.git.Options
---@field owner? string Owner in the base; root when not given.

---A step that puts the tree of a git commit into the base, without its history. The host's git fetches it, so the base needs no network inside; it counts by the commit. A branch or tag is looked up each time; a commit named by all its digits needs no network at all once it is here.
---
---- error `invalid_input`: The repository has no such branch, tag or commit.
---- error `not_found`: The host has no git, or no such path.
---- error `transport`: The repository can't be reached.
---
---```lua
---b:git("vendor/lib.git", "v1.0", "/opt/lib")
---```
---@param url string The repository, or the path of one in the project folder.
---@param ref string A branch, a tag, or a whole commit id.
---@param to string An absolute path in the base.
---@param options? Builder.git.Options
function Builder:git(url, ref, to, options) end

---A snapshot point: gives what was done so far a name, by which Base.at finds it. What volatile steps did is not in it.
---
---- error `invalid_input`: There is one of that name.
---
---```lua
---b:run("mkdir -p /opt/deps")
---b:snapshot("deps")
---```
---@param name string Its name.
function Builder:snapshot(name) end

---@class (exact) Builder.copy.Options
---@field all? boolean Copy what ignore files name, too. Default: false.
---@field exclude? string[] Patterns of what is left out, as in .gitignore.
---@field mode? integer|string Permission bits of a single file.
---@field owner? string Owner in the base; root when not given.

---A step that copies a host file or folder, as Sandbox.push does.
---
---- error `runtime`: The host path is not in the project folder.
---- error `not_found`: The host path is not there.
---
---```lua
---b:copy("requirements.txt", "/opt/requirements.txt")
---```
---@param from string A host path, relative to the project folder.
---@param to string An absolute path in the base.
---@param options? Builder.copy.Options
function Builder:copy(from, to, options) end

---@class (exact) Builder.write.Options
---@field mode? integer|string Permission bits, such as 0o755 or "755".
---@field owner? string Owner: "user" or "user:group".

---A step that writes a file; missing folders are made.
---
---```lua
---b:write("/etc/app.conf", "port = 80\n")
---```
---@param path string An absolute path in the base.
---@param content string|Secret Text or bytes; a secret is refused.
---@param options? Builder.write.Options
function Builder:write(path, content, options) end

---From here on, steps have this in their environment, and so has what is cloned from the base.
---
---```lua
---b:env("CC", "clang")
---```
---@param name string The variable.
---@param value string|number|boolean Its value.
function Builder:env(name, value) end

---@class (exact) Builder.cache.Options
---@field share? boolean Others that share it may have it at the same time. Default: false.

---From here on, steps have this folder, which outlives the base: it is in no key, in no snapshot and in no clone, and other bases, cells and runs that name it find in it what was left there. One at a time has it, the others wait; a step must come out the same when it is empty.
---
---- error `invalid_input`: The base has it already, or something else at that path.
---- error `unsupported`: The backend keeps no caches.
---
---```lua
---b:cache("pip", "/root/.cache/pip")
---b:run("ls /root/.cache/pip")
---```
---@param name string Which cache; made when there is none.
---@param path string An absolute path in the base.
---@param options? Builder.cache.Options
function Builder:cache(name, path, options) end

---From here on, steps run as this user.
---
---```lua
---b:user("nobody")
---```
---@param user string User name or number, with optional :group.
function Builder:user(user) end

---From here on, steps run in this directory.
---
---```lua
---b:workdir("/opt")
---```
---@param path string An absolute path.
function Builder:workdir(path) end

---@class Base
---@field name string Its name.
---@field sandbox string The name of the sandbox that holds it.
---@field label string The label of its snapshot.
---@field fingerprint string The digest of the image it started from.
---@field steps integer How many steps it has.
---@field hits integer How many of its steps had been done before.
---@field duration number How long it took to have it, in seconds.
local Base = {}

---The base as it was at a snapshot point.
---
---- error `runtime`: It has no such point.
---
---```lua
---local app = base("app", function(b) b:run("mkdir /deps") b:snapshot("deps") b:run("mkdir /app") end)
---local deps <close> = sandbox({ from = app:at("deps") })
---```
---@param name string The point's name.
---@return Base
function Base:at(name) end

---@class Cell
---@field attempt integer Which attempt this is, from 1; more than 1 only with the option retries.
---@field id string Its id, which is a filter that selects it, such as "db=sqlite,locale=C".
---@field matrix string The name of its matrix.
---@field sandbox Sandbox Its sandbox, which is deleted after it.
---@field values table<string, any> Its values by axis. Each is a property of the cell, too: cell.db.
---@field [string] any Its value on an axis.
local Cell = {}

---Reads the report that a test runner wrote in the cell's sandbox: JUnit XML, or the JSON lines of Rust's libtest. Its tests then stand under their cell in all reports, failures as annotations at their own file and line. They don't decide how the cell ends. Gives passed, failed, skipped, total, and failures: the names of those that failed.
---
---- error `not_found`: There is no such file.
---- error `runtime`: It is no such report.
---
---```lua
---cell.sandbox:write("/tmp/junit.xml", "<testsuite><testcase name='a'/></testsuite>")
---print(cell:results("/tmp/junit.xml").passed)
---```
---@param path string The report, in the sandbox.
---@return table<string, any>
function Cell:results(path) end

---@class Host
local Host = {}

---Calls a method of a NAS, as its API documentation has it, and gives what it answers; a job is waited for. What only looks is called always, anything else needs --allow-call.
---
---- error `unsupported`: The backend has no such methods: only a NAS has.
---- error `invalid_input`: It may change the NAS, and --allow-call was not given.
---
---```lua
---local name = backend().name
---if name == "truenas" then print(host():call("pool.query", { { { "healthy", "=", true } } })) end
---```
---@param method string The method, such as "pool.query".
---@param params? any[] Its parameters, in order. Default: none.
---@return any
function Host:call(method, params) end

---@class Secret
---@field name string Its name.
local Secret = {}

---@class Error
---@field code string A stable word for the kind of error: "not_found", "already_exists", "not_running", "busy", "timeout", "auth", "unsupported", "invalid_input", "permission", "exhausted", "transport", "internal", "command_failed", "assert", "runtime", "usage" or "thrown".
---@field message string What is wrong, in a sentence.
---@field hint string? What to do about it, when that is known.
---@field result Result? For a command that failed: its result.
local Error = {}

---@class (exact) sandbox.Options
---@field from? string|Base|Sandbox What it starts from: an image, a base, or a sandbox. Default: the backend's own image.
---@field image? string Another word for from, for an image.
---@field sha256? string The checksum that an image given by URL must have.
---@field label? string Where from is a sandbox: the label of its snapshot.
---@field mounts? (table<string, any>)[] Host folders in it: a list of #{ source, target, readonly }.
---@field user? string User of every command that names none.
---@field cwd? string Working directory of every command that names none.
---@field pool? string The storage pool that its files are on.
---@field cpus? string The CPUs that it runs on, such as "0-3" or "0,2".
---@field mac? string Its card's hardware address.
---@field address? string A fixed address with the length of its network, such as "192.168.1.50/24".
---@field users? string[] Accounts to make in it, each with a home.
---@field keys? string[] Public keys that let one in by SSH, as root and each of users.
---@field dns? string[] Addresses of the servers that it asks for names.
---@field tools? string[] Packages of its distribution to install. It needs egress for that.
---@field cpu? number CPUs it may use, such as 0.5 or 2.
---@field memory? Size Memory it may use.
---@field pids? integer How many processes it may have.
---@field disk? Size How much it may write to disk.
---@field inodes? integer How many files it may create.
---@field caches? table<string, string|table<string, any>> Folders that outlive it and are in no snapshot: by name the path, or #{ path, share }. One that is not shared is waited for while another sandbox that runs has it.
---@field devices? table<string, table<string, any>> Devices of the machine's in it, by name; of a clone, beside its source's.
---@field nesting? boolean Let containers run in it, which weakens what keeps it in. Default: false; a clone is as its source.
---@field hostname? string Its host name; the sandbox's name when not given.
---@field egress? string|string[]|table<string, any> What it may reach: "none", "unrestricted", a preset such as "agent", a list of rules, or #{ preset, allow, deny }. Default: nothing; of a clone, what its source may.
---@field network? Network|Network[] Networks that it is in, a network or a list: it reaches the others in them by name, whatever egress says. Default: none, of a clone, too.
---@field env? table<string, string|number|boolean> Environment of every command in it.
---@field labels? table<string, string|number|boolean> Labels of your own, kept with it.
---@field keep? boolean Keep it when the run ends. Default: false.
---@field expires? Duration After this long gc may delete it.
---@field bare? boolean Leave it stopped. Default: false.
---@field target? string Where in a cluster: a member's name, or @ and a group's, of which the cluster picks a member. Default: where the cluster puts it; a clone is beside its source.

---Makes a sandbox and waits until a command has run in it. It is deleted when the run ends, however it ends, unless it is kept.
---
---- error `already_exists`: There is one of that name.
---- error `invalid_input`: A name, size or path is none.
---- error `not_found`: The image, base or sandbox it starts from is not there.
---- error `unsupported`: The backend can't do what an option asks.
---
---```lua
---local tmp <close> = sandbox("tmp", { memory = "1GiB", env = { CI = true } })
---print(tmp.state)
---```
---@param name? string Its name: 1 to 63 of a-z, 0-9 and '-'. Made up when not given.
---@param options? sandbox.Options
---@return Sandbox
---@overload fun(options: sandbox.Options): Sandbox
function sandbox(name, options) end

---Finds a sandbox that is there already. It is not deleted when the run ends.
---
---- error `not_found`: There is none of that name.
---
---```lua
---local web = open("web")
---```
---@param name string Its name.
---@return Sandbox
function open(name) end

---All sandboxes of the backend, by name.
---
---```lua
---for _, one in ipairs(sandboxes()) do print(one.name) end
---```
---@return Sandbox[]
function sandboxes() end

---@class (exact) delete.Options
---@field missing_ok? boolean Do nothing when there is none. Default: false.

---Deletes a sandbox with its snapshots. Clones of it live on.
---
---- error `not_found`: There is none of that name.
---
---```lua
---delete("scratch", { missing_ok = true })
---```
---@param name string Its name.
---@param options? delete.Options
function delete(name, options) end

---A network of this run, for the option network of sandbox(), clone() and matrix(). Sandboxes that are in it reach each other by their names or host names, whatever their egress policies are; nobody else reaches them by it, and a network of that name in another run is another one. One that stops is gone from it, and there again when it starts.
---
---- error `invalid_input`: It is no name of a network.
---
---```lua
---local net = network("net")
---local db = sandbox("db", { network = net })
---local app = sandbox("app", { network = net, env = { DB = "db:5432" } })
---```
---@param name string Its name in this run: a-z, 0-9 and '-'.
---@return Network
function network(name) end

---@class (exact) base.Options
---@field from? string|Base|Sandbox What it starts from: an image, a base, or a sandbox. Default: the backend's own image.
---@field image? string Another word for from, for an image.
---@field sha256? string The checksum that an image given by URL must have.
---@field label? string Where from is a sandbox: the label of its snapshot.
---@field egress? string|string[]|table<string, any> What its steps may reach, and what is cloned from it: "none", "unrestricted", a preset such as "agent", a list of rules, or #{ preset, allow, deny }. Default: nothing.
---@field env? table<string, string|number|boolean> Environment of its steps, and of what is cloned from it.
---@field user? string User of its steps.
---@field cwd? string Working directory of its steps.
---@field lazy? boolean Build it when it is needed first: by a sandbox, a matrix or another base that starts from it, by one of its properties, or by build_bases. So bases that don't depend on each other are built side by side, and on each backend that needs them. In Rhai its function gets copies of the variables it uses. Default: false.
---@field cpu? number CPUs it may use, such as 0.5 or 2.
---@field memory? Size Memory it may use.
---@field pids? integer How many processes it may have.
---@field disk? Size How much it may write to disk.
---@field inodes? integer How many files it may create.
---@field devices? table<string, table<string, any>> Devices of the machine's that its steps have, by name.
---@field nesting? boolean Let containers run in it, which weakens what keeps it in. Default: false; a clone is as its source.
---@field expires? Duration After this long without use gc may delete it. Default: what the settings say, else 30 days.

---Builds a base out of steps, each of which ends in a snapshot that is kept. When nothing that a step depends on has changed, it is not done again: not in the next run either, nor in another script.
---
---- error `command_failed`: A step does not return 0.
---- error `not_found`: What it starts from is not there.
---
---```lua
---local app = base("app", { env = { LANG = "C" } }, function(b)
---    b:run("mkdir -p /opt/app")
---    b:copy("requirements.txt", "/opt/app/requirements.txt")
---end)
---local fresh <close> = sandbox({ from = app })
---```
---@param name string Its name, for people.
---@param options? base.Options
---@param steps fun(b: Builder) Does the steps.
---@return Base
---@overload fun(name: string, steps: fun(b: Builder)): Base
function base(name, options, steps) end

---Builds lazy bases, several at once, each after the one that it starts from. What is built already is left as it is.
---
---- error `command_failed`: A step does not return 0; the other bases are built.
---- error `runtime`: A base needs itself.
---
---```lua
---local cc = base("cc", { lazy = true }, function(b) b:run("mkdir /cc") end)
---local py = base("py", { lazy = true }, function(b) b:run("mkdir /py") end)
---build_bases({ cc, py })
---```
---@param bases Base[] The bases.
function build_bases(bases) end

---@class (exact) matrix.Options
---@field from? string|Base|Sandbox|fun(cell: table<string, any>) What cells start from: an image, a base, a sandbox, or a function that gives one of these for a map of a cell's values and its id. Bases are built before any cell begins, side by side, each once; when one can't be, its cells fail and the others run. Default: the backend's own image.
---@field image? string Another word for from, for an image.
---@field sha256? string The checksum that an image given by URL must have.
---@field label? string Where from is a sandbox: the label of its snapshot.
---@field axes? table<string, any> For each axis its values: #{ db: ["sqlite", "postgres"] }. Axes are ordered by name.
---@field include? (table<string, string|number|boolean>)[] Cells to add, or values to add to those that fit.
---@field exclude? (table<string, string|number|boolean>)[] Combinations to leave out.
---@field parallel? integer How many run at once. Default: what the backend can do.
---@field pool? integer How many started clones are to wait for the cells of the next run, which then begin at once: cells take them, and more are made beside as they do. They go with gc after an hour. No more than the matrix has cells. Cells with caches or networks, and those that are not cloned from a snapshot or a base, are never made ahead. Where clones take milliseconds it does nothing. Default: 0.
---@field timeout? Duration How long one attempt of a cell may take.
---@field warn_after? Duration After how long a cell that still runs is told of, again and again. Default: half of its timeout.
---@field retries? integer How often a cell that failed is tried again, each time in a fresh sandbox. One that then passes is flaky. Default: 0.
---@field backoff? Duration The pause before the second attempt; before each further one it is twice as long.
---@field fail_fast? boolean End all when one fails: max_fail of 1. Default: false.
---@field max_fail? integer End all when so many failed. Default: run all.
---@field order? "longest"|"given"|"random" In which order cells start: "longest" first, by the times of earlier runs, as "given", or "random". Default: longest.
---@field artifacts? string[] Files and folders to copy out of each cell when its function is over, where they are there: to --artifacts, else into the record of the run.
---@field options? fun(cell: table<string, any>) Is run for each cell before any of them begins, several at once, with a map of its values and its id; gives what the cell has of its own: backend, host (the machine that the backend drives), from, label, egress, cpu, memory, pids, disk, inodes, env, caches, target, and weight, of how many others it takes the place. Axes of these names, but for label, env, caches and weight, are the same.
---@field setup? fun(cell: Cell) Is run in each cell before its function.
---@field teardown? fun(cell: Cell) Is run in each cell after its function, however that ended, a minute at most.
---@field egress? string|string[]|table<string, any> What cells may reach: "none", "unrestricted", a preset such as "agent", a list of rules, or #{ preset, allow, deny }. Default: what their source may.
---@field env? table<string, string|number|boolean> Added to the environment of their commands.
---@field caches? table<string, string|table<string, any>> Folders that outlive it and are in no snapshot: by name the path, or #{ path, share }. One that is not shared is waited for while another sandbox that runs has it.
---@field devices? table<string, table<string, any>> Devices of the machine's that every cell has, by name.
---@field nesting? boolean Let containers run in it, which weakens what keeps it in. Default: false; a clone is as its source.
---@field network? Network|Network[] Networks that all cells are in, a network or a list: they reach each other, too. Default: none.
---@field target? string Where in a cluster the cells are: a member's name, or @ and a group's. Default: where the cluster puts them. When a member goes away, its cells begin again elsewhere.
---@field cpu? number CPUs it may use, such as 0.5 or 2.
---@field memory? Size Memory it may use.
---@field pids? integer How many processes it may have.
---@field disk? Size How much it may write to disk.
---@field inodes? integer How many files it may create.

---Runs a function in a fresh clone for every combination of values, several at once. A cell whose function fails is reported, and the run then ends with exit code 1. In Rhai the function gets copies of the variables it uses: what it sets in them, no other cell sees; in Lua all cells share them. Gives a report: name, ok, passed, flaky, expected_failure, skipped, failed, timed_out, cancelled, not_run, total, listed, duration and cells, each with id, values, ok, outcome, attempts, duration, message, output, kept and moved (members of a cluster that went away under it). Of more than 3000 cells it has those that did not pass, 3000 at most.
---
---- error `not_found`: What it starts from is not there.
---
---```lua
---local report = matrix("tests", { from = tools, axes = { level = { "O0", "O2" } } }, function(cell)
---    cell.sandbox:run({ "echo", "cc", "-" .. cell.level })
---end)
---print(report.passed)
---```
---@param name string Its name, for people.
---@param options? matrix.Options
---@param body fun(cell: Cell) Is run in each cell.
---@return table<string, any>
---@overload fun(name: string, body: fun(cell: Cell)): table<string, any>
function matrix(name, options, body) end

---Ends the cell that calls: there is nothing to do in it. It counts as skipped.
---
---- error `assert`: Always; to catch it does not undo it.
---
---```lua
---matrix("m", { axes = { db = { "sqlite", "oracle" } } }, function(cell)
---    if cell.db == "oracle" then skip("no licence") end
---end)
---```
---@param reason? string Why, in a few words.
function skip(reason) end

---Says that the cell that calls will fail. When it does, it counts as an expected failure, which is none of the run; when it does not, it fails.
---
---```lua
---matrix("m", { axes = { db = { "sqlite", "mysql" } } }, function(cell)
---    if cell.db == "mysql" then expect_fail("not ported yet") fail("no driver") end
---end)
---```
---@param reason string Why, in a few words.
function expect_fail(reason) end

---What the sandboxes run on: name, default_image, egress (who enforces it: "host" or "guest"), capabilities, missing (why, for what it can't do), parallelism.
---
---```lua
---print(backend().default_image)
---```
---@return table<string, any>
function backend() end

---@class (exact) gc.Options
---@field dry_run? boolean Only say what would be deleted. Default: false.

---Deletes what dead runs left and what has expired; never what a live run owns. Gives sandboxes (names), leftovers and bytes.
---
---```lua
---print(gc({ dry_run = true }).leftovers)
---```
---@param options? gc.Options
---@return table<string, any>
function gc(options) end

---The machine that the sandboxes run on, for what its own interface can do besides.
---
---```lua
---local nas = host()
---```
---@return Host
function host() end

---The members of the cluster that the sandboxes run on, each with name, groups, state ("online", "offline" or "evacuated"), cpus and load (of the last minute). An empty list where there is one machine only.
---
---```lua
---for _, member in ipairs(members()) do print(member.name) end
---```
---@return (table<string, any>)[]
function members() end

---A parameter of the script, given with --set name=value. It has the type of its default: a string, a number, a bool, or a list (written a,b,c).
---
---- error `usage`: It must be given and is not, or is of another type than the default.
---
---```lua
---local jobs = param("jobs", 4, "how many cells at once")
---```
---@param name string Its name.
---@param default? any What it is when not given; without one it must be given.
---@param doc? string One sentence for whoever starts the script.
---@return any
---@overload fun(name: string, doc: string): any
function param(name, default, doc) end

---What stood after the script's name on the command line.
---
---```lua
---for _, word in ipairs(args()) do print(word) end
---```
---@return string[]
function args() end

---A variable of the host's environment. One that is not set is an error unless there is a default.
---
---- error `runtime`: It is not set, and there is no default.
---
---```lua
---local user = env("USER", "nobody")
---```
---@param name string Its name.
---@param default? any What it is when not set.
---@return any
function env(name, default) end

---@class (exact) log.Options
---@field level? "debug"|"info"|"warn"|"error" How loud. Default: info.

---Says something in the run's log.
---
---```lua
---log("no cache, this will take a while", { level = "warn" })
---```
---@param message any What to say.
---@param options? log.Options
function log(message, options) end

---A secret of the host: a value that can be given to a command, as a variable of its environment or as standard input, and written to a file of a sandbox, and that is never shown. Where it stands in what is printed or reported there is *** instead, in base64 and URL-encoded, too. The settings say where it comes from, under secrets; without them it is the environment variable of that name.
---
---- error `invalid_input`: It is not set, too short, or can't be read.
---- error `not_found`: The file it comes from is not there.
---
---```lua
---local token = secret("API_TOKEN")
---box:run("test -n \"$TOKEN\"", { env = { TOKEN = token } })
---```
---@param name string Its name.
---@return Secret
function secret(name) end

---Waits. Ends at once when the run is cancelled.
---
---```lua
---sleep("20ms")
---```
---@param duration Duration How long.
function sleep(duration) end

---The time: seconds since 1970, with a fraction.
---
---```lua
---local started = now()
---```
---@return number
function now() end

---How many seconds a duration is.
---
---```lua
---assert_eq(seconds("1m30s"), 90)
---```
---@param duration Duration The duration.
---@return number
function seconds(duration) end

---Fails unless the condition holds.
---
---- error `assert`: It does not hold.
---
---```lua
---assert(box:exists("/etc/passwd"), "no users")
---```
---@param condition boolean What must hold.
---@param message? any What to say when it does not.
function assert(condition, message) end

---Fails unless both are equal; shows both.
---
---- error `assert`: They are not equal.
---
---```lua
---assert_eq(box:exec("false").code, 1)
---```
---@param left any One value.
---@param right any The other.
---@param message? any What to say when they are not.
function assert_eq(left, right, message) end

---Fails with a message, as an assertion that does not hold.
---
---- error `assert`: Always.
---
---```lua
---if not box:exists("/etc/passwd") then fail("no users", "use another image") end
---```
---@param message any What is wrong, in a sentence.
---@param hint? string What to do about it.
function fail(message, hint) end

---For functions of your own that take options: the defaults with what is given over them. An option that is in neither the defaults nor also is an error with a suggestion, as is one of another type than its default.
---
---- error `runtime`: An option is unknown or of another type.
---
---```lua
---local options = check_options({ jobs = 4 }, { jobs = 1, clean = true }, { "only" })
---```
---@param given table<string, any> The options that the function got.
---@param defaults table<string, any> Every option that has a default.
---@param also? string[] The names of options that have none.
---@return table<string, any>
function check_options(given, defaults, also) end

---A value from JSON text.
---
---- error `runtime`: The text is not JSON.
---
---```lua
---local version = json_parse('{"version": "1.2"}').version
---```
---@param text string JSON.
---@return any
function json_parse(text) end

---@class (exact) json_stringify.Options
---@field pretty? boolean With line breaks. Default: false.

---A value as JSON text; maps are ordered by key.
---
---- error `runtime`: There is something in it that JSON does not have.
---
---```lua
---box:write("/tmp/config.json", json_stringify({ port = 80 }))
---```
---@param value any Nothing, bool, number, string, list or map.
---@param options? json_stringify.Options
---@return string
function json_stringify(value, options) end
