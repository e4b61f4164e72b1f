--- Services: starting and stopping them, and waiting until they answer.
---
--- Works with and without an init system. Where systemd or OpenRC runs in the sandbox, it is asked.
--- Where none runs, as on the backend `local`, a service is started by its script in `/etc/init.d`,
--- else by the `ExecStart` of its systemd unit, as the user that the unit names.
---
--- Tests run it without an init system. The lines that ask systemd and OpenRC have no test: no image
--- that the tests can get boots one of them on a backend that is there.

local services = {}

local ACT = [[# start, stop or ask a service
action=$1 name=$2
if [ -d /run/systemd/system ] && command -v systemctl >/dev/null; then
  if [ "$action" = status ]; then exec systemctl is-active --quiet -- "$name"; fi
  exec systemctl "$action" -- "$name"
fi
if [ -e /run/openrc/softlevel ] && command -v rc-service >/dev/null; then
  exec rc-service "$name" "$action"
fi
if [ -x "/etc/init.d/$name" ]; then exec "/etc/init.d/$name" "$action"; fi
unit=
for folder in /etc /run /usr/local/lib /usr/lib /lib; do
  file=$folder/systemd/system/$name.service
  if [ -z "$unit" ] && [ -f "$file" ]; then unit=$file; fi
done
if [ -z "$unit" ]; then
  echo "there is no service '$name': no init system runs here, and neither /etc/init.d nor a systemd unit has it" >&2
  exit 5
fi
value() { sed -n "s/^$1=//p" "$unit" | tail -n 1; }
record=/run/$name.started log=/var/log/$name.log
alive() { [ -f "$record" ] && read -r pid <"$record" && kill -0 "$pid" 2>/dev/null; }
stop() {
  if ! alive; then rm -f "$record"; return; fi
  kill -- "-$pid" 2>/dev/null || kill "$pid"
  n=0
  while kill -0 "$pid" 2>/dev/null; do
    n=$((n + 1)); if [ $n -gt 100 ]; then kill -9 -- "-$pid" 2>/dev/null || kill -9 "$pid"; fi
    sleep 0.1 2>/dev/null || sleep 1
  done
  rm -f "$record"
}
start() {
  if alive; then return; fi
  command=$(value ExecStart | sed 's/^[-@:+!|]*//')
  user=$(value User) folder=$(value WorkingDirectory)
  export $(value Environment) >/dev/null
  mkdir -p /run /var/log
  if [ -n "$user" ] && [ "$user" != root ]; then
    touch "$log" && chown "$user" "$log" && command="runuser -u $user -- $command"
  fi
  cd "$(if [ -n "$folder" ]; then echo "$folder"; else echo /; fi)" || exit 1
  setsid sh -c "echo \$\$ >'$record'; exec $command" >>"$log" 2>&1 </dev/null &
  n=0
  until [ -s "$record" ] || [ $n -gt 100 ]; do n=$((n + 1)); sleep 0.1 2>/dev/null || sleep 1; done
  sleep 0.1 2>/dev/null || sleep 1
  if ! alive; then
    echo "the service '$name' ended at once; the end of $log:" >&2; tail -n 20 "$log" >&2; exit 1
  fi
}
case $action in
  status) alive ;;
  start) start ;;
  stop) stop ;;
  restart) stop; start ;;
esac
]]

local PORT = [[# wait for a port
port=$1 host=$2 interval=$3
wanted=$(printf ':%04X 0A' "$port")
open() {
  if [ -z "$host" ]; then
    for table in /proc/net/tcp /proc/net/tcp6; do
      [ -r $table ] || continue
      while read -r _ address _ state _; do
        case "$address $state" in *"$wanted") return 0 ;; esac
      done <$table
    done
    return 1
  fi
  if command -v bash >/dev/null; then
    bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$host" "$port" 2>/dev/null
  elif command -v nc >/dev/null; then
    nc -z "$host" "$port" 2>/dev/null
  elif command -v python3 >/dev/null; then
    python3 -c 'import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)' "$host" "$port" 2>/dev/null
  else
    echo 'asking another host for a port takes bash, nc or python3, and none of them is here' >&2; exit 127
  fi
}
until open; do sleep "$interval" 2>/dev/null || sleep 1; done
]]

local HTTP = [[# wait for an answer by HTTP
url=$1 status=$2 text=$3 interval=$4 tool=$5 once=$6
if [ -z "$tool" ]; then
  for it in curl wget python3; do command -v $it >/dev/null && tool=$it && break; done
fi
case $tool in curl | wget | python3) ;; *)
  echo 'asking by HTTP takes curl, wget or python3, and none of them is here' >&2; exit 127 ;;
esac
if ! command -v "$tool" >/dev/null; then echo "$tool is not here" >&2; exit 127; fi
page=$(mktemp) head=$(mktemp)
trap 'rm -f "$page" "$head"' EXIT
trap 'exit 143' TERM
ask() {
  case $tool in
    curl) curl -s -o "$page" -w '%{http_code}' --max-time 10 -- "$url" ;;
    wget)
      wget -S -T 10 -O "$page" "$url" 2>"$head"
      sed -n 's,^ *HTTP/[0-9.]* \([0-9]*\).*,\1,p' "$head" | tail -n 1 ;;
    python3) python3 -c '
import sys, urllib.error, urllib.request
try:
    answer = urllib.request.urlopen(sys.argv[1], timeout=10)
except urllib.error.HTTPError as error:
    answer = error
open(sys.argv[2], "wb").write(answer.read())
print(answer.status)
' "$url" "$page" 2>/dev/null ;;
  esac
}
while :; do
  code=$(ask)
  if [ -z "$code" ] || [ "$code" = 000 ]; then why='nobody answers'
  elif [ -n "$status" ] && [ "$code" != "$status" ]; then why="the answer is $code"
  elif [ -z "$status" ] && { [ "$code" -lt 200 ] || [ "$code" -ge 400 ]; }; then why="the answer is $code"
  elif [ -n "$text" ] && ! grep -qF -- "$text" "$page"; then why='the answer lacks the text'
  else exit 0; fi
  if [ -n "$once" ]; then echo "$why"; exit 1; fi
  sleep "$interval" 2>/dev/null || sleep 1
done
]]

local LINE = [[# wait for a line in a file
until grep -F -m 1 -- "$2" "$1" 2>/dev/null; do sleep "$3" 2>/dev/null || sleep 1; done
]]

local function first_line(text)
  return (text:match("^[^\n]*"))
end

--- Starts a service. One that runs is fine.
---
--- ```rhai
--- import "std/services" as services;
--- box.write("/etc/systemd/system/pages.service", "[Service]\nExecStart=python3 -m http.server 8000\n", #{ parents: true });
--- services::start(box, "pages");
--- services::wait_http(box, "http://127.0.0.1:8000/");
--- services::stop(box, "pages");
--- ```
--- ```lua
--- local services = require("std.services")
--- box:write("/etc/systemd/system/pages.service", "[Service]\nExecStart=python3 -m http.server 8000\n", { parents = true })
--- services.start(box, "pages")
--- services.wait_http(box, "http://127.0.0.1:8000/")
--- services.stop(box, "pages")
--- ```
function services.start(box, name)
  box:run({ "sh", "-c", ACT, "services", "start", name })
end

--- Stops a service. One that does not run is fine.
function services.stop(box, name)
  box:run({ "sh", "-c", ACT, "services", "stop", name })
end

--- Stops a service and starts it again.
function services.restart(box, name)
  box:run({ "sh", "-c", ACT, "services", "restart", name })
end

--- Whether a service runs.
function services.running(box, name)
  local asked = box:exec({ "sh", "-c", ACT, "services", "status", name })
  if asked.code == 5 then fail(first_line(asked.stderr)) end
  return asked.ok
end

-- Runs what waits, and says what it waited for when the time is over.
local function wait_until(box, command, timeout, what, why)
  local ok, result = pcall(box.run, box, command, { timeout = timeout })
  if ok then return result end
  if result.code ~= "timeout" then error(result, 0) end
  local reason = why()
  fail("waited " .. timeout .. " for " .. what .. (reason == "" and "" or ": " .. reason))
end

--- Waits until something listens on a TCP port of the sandbox, or of a host that it reaches.
---
--- Options:
--- - `timeout`: how long to wait. Default: "30s".
--- - `interval`: how many seconds to wait between two looks. Default: 0.1.
--- - `host`: a host to ask instead of looking inside. Default: none.
function services.wait_port(box, port, options)
  local o = check_options(options or {}, { timeout = "30s", interval = 0.1, host = "" })
  local command = { "sh", "-c", PORT, "services", tostring(port), o.host, tostring(o.interval) }
  local what = "port " .. port .. (o.host == "" and "" or " of " .. o.host)
  wait_until(box, command, o.timeout, what, function() return "nothing listens there" end)
end

--- Waits until a URL, asked for inside the sandbox, answers as it should.
---
--- Options:
--- - `status`: the status that the answer must have. Default: any from 200 to 399.
--- - `contains`: a text that it must hold. Default: none.
--- - `timeout`: how long to wait. Default: "30s".
--- - `interval`: how many seconds to wait between two questions. Default: 0.2.
--- - `tool`: the program that asks: "curl", "wget" or "python3". Default: the first that is there.
function services.wait_http(box, url, options)
  local o = check_options(options or {}, { status = "", contains = "", timeout = "30s", interval = 0.2, tool = "" })
  local command = {
    "sh", "-c", HTTP, "services", url, tostring(o.status), o.contains, tostring(o.interval), o.tool,
  }
  wait_until(box, command, o.timeout, url, function()
    command[#command + 1] = "once"
    return first_line(box:exec(command).stdout)
  end)
end

--- Waits until a line of a file holds a text, and gives the line. The file may be missing at first.
---
--- Options:
--- - `timeout`: how long to wait. Default: "30s".
--- - `interval`: how many seconds to wait between two looks. Default: 0.1.
---
--- ```rhai
--- import "std/services" as services;
--- box.spawn("sleep 0.1; echo ready on port 80 > /tmp/log");
--- print(services::wait_log(box, "/tmp/log", "ready"));
--- ```
--- ```lua
--- local services = require("std.services")
--- box:spawn("sleep 0.1; echo ready on port 80 > /tmp/log")
--- print(services.wait_log(box, "/tmp/log", "ready"))
--- ```
function services.wait_log(box, path, text, options)
  local o = check_options(options or {}, { timeout = "30s", interval = 0.1 })
  local command = { "sh", "-c", LINE, "services", path, text, tostring(o.interval) }
  local found = wait_until(box, command, o.timeout, "'" .. text .. "' in " .. path, function()
    if not box:exists(path) then return "there is no such file" end
    local last = first_line(box:exec({ "tail", "-n", "1", "--", path }).stdout)
    return last == "" and "it is empty" or "its last line is '" .. last .. "'"
  end)
  return first_line(found.stdout)
end

--- Waits until a process prints a line that holds a text, and gives the line.
---
--- Options:
--- - `timeout`: how long to wait. Default: "30s".
--- - `stream`: "stdout" or "stderr". Default: "stdout".
---
--- ```rhai
--- import "std/services" as services;
--- let server = box.spawn("echo starting; echo listening on 80; sleep 60");
--- print(services::wait_line(server, "listening"));
--- server.kill();
--- ```
--- ```lua
--- local services = require("std.services")
--- local server = box:spawn("echo starting; echo listening on 80; sleep 60")
--- print(services.wait_line(server, "listening"))
--- server:kill()
--- ```
function services.wait_line(process, text, options)
  local o = check_options(options or {}, { timeout = "30s", stream = "stdout" })
  local ends = now() + seconds(o.timeout)
  while true do
    local left = math.max(ends - now(), 0)
    local ok, line = pcall(process.read_line, process, left, { stream = o.stream })
    if not ok then
      if line.code ~= "timeout" then error(line, 0) end
      fail("waited " .. o.timeout .. " for '" .. text .. "' from the process")
    end
    if line == nil then fail("the process ended its output without '" .. text .. "'") end
    if line:find(text, 1, true) then return line end
  end
end

return services
