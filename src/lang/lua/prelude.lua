-- Makes Lua's own functions fit for scripts. Runs once for each machine, before the script, with
-- what Rust gives. No frame of this file is ever shown.
--
-- A host call that has to wait yields PENDING through all of the script's own coroutines up to the
-- body, whose driver waits and resumes with the result. A stop is raised again wherever a script
-- could have swallowed it.

local host = ...
local error, next, rawequal, rawget, rawset, select, type = error, next, rawequal, rawget, rawset, select, type
local plain_tostring, get_metatable, set_metatable = tostring, getmetatable, setmetatable
local protected, load_text, collect = xpcall, load, collectgarbage
local create, resume, close = coroutine.create, coroutine.resume, coroutine.close
local yield, yieldable = coroutine.yield, coroutine.isyieldable
local running, status = coroutine.running, coroutine.status
local concat, sort, format = table.concat, table.sort, string.format

local PENDING = {}
local weak = { __mode = "k" }
-- Threads that the host drives, and coroutines that wait for it.
local bodies, parked = set_metatable({}, weak), set_metatable({}, weak)
-- For maps of the host: keys whose value is nothing, which a table can't hold.
local absent = host.absent

local function raise(value)
    return error(value, 0)
end

local function finish(ok, value)
    if ok then
        return value
    end
    return error(host.failed(), 0)
end

-- The function of a registry entry: `begin` starts it, and is done, has failed or must wait.
local function bind(begin)
    return function(...)
        local ok, value = begin(...)
        if ok then
            return value
        end
        if ok == false then
            return error(value, 0)
        end
        if not yieldable() then
            host.give_up()
            return error(host.failed(), 0)
        end
        return finish(yield(PENDING))
    end
end

local function check(ok, ...)
    if not ok then
        local stop = host.stop((...))
        if stop then
            return error(stop, 0)
        end
    end
    return ok, ...
end

function pcall(f, ...)
    return check(protected(f, host.caught, ...))
end

function xpcall(f, handler, ...)
    return check(protected(f, function(value)
        if host.stop(value) then
            return value
        end
        return handler(host.caught(value))
    end, ...))
end

local again

-- What a coroutine gave: when it waits for the host, so does the one who resumed it.
local function passed(co, ok, mark, ...)
    if ok and rawequal(mark, PENDING) then
        if not yieldable() then
            host.give_up()
            return passed(co, resume(co, false))
        end
        parked[co] = true
        return again(co, yield(PENDING))
    end
    return ok, mark, ...
end

function again(co, ...)
    parked[co] = nil
    return passed(co, resume(co, ...))
end

local function result(ok, ...)
    if ok then
        return ...
    end
    return error((...), 0)
end

local function new_coroutine(f)
    if type(f) ~= "function" then
        return raise(host.fault("a coroutine is made of a function, not of a " .. type(f)))
    end
    return create(function(...)
        return result(protected(f, host.caught, ...))
    end)
end

local function advance(co, ...)
    if parked[co] then
        return false, "cannot resume a coroutine that waits for the host"
    end
    return check(passed(co, resume(co, ...)))
end

coroutine = {
    create = new_coroutine,
    resume = advance,
    wrap = function(f)
        local co = new_coroutine(f)
        return function(...)
            return result(advance(co, ...))
        end
    end,
    yield = function(...)
        if bodies[running()] then
            return raise(host.fault("coroutine.yield() works only inside a coroutine"))
        end
        return yield(...)
    end,
    status = function(co)
        return parked[co] and "normal" or status(co)
    end,
    running = function()
        local co = running()
        return co, bodies[co] or false
    end,
    isyieldable = function()
        return yieldable() and not bodies[running()]
    end,
    close = function(co)
        if parked[co] then
            return raise(host.fault("a coroutine that waits for the host can't be closed"))
        end
        return check(close(co))
    end,
}

function tostring(value)
    local kind = type(value)
    if kind == "table" then
        local meta = get_metatable(value)
        local own = type(meta) == "table" and rawget(meta, "__tostring")
        if own then
            return own(value)
        end
        return host.text(value)
    elseif kind == "string" or kind == "number" or kind == "boolean" or kind == "nil" then
        return plain_tostring(value)
    end
    return host.text(value)
end

function print(...)
    local parts = { ... }
    for i = 1, select("#", ...) do
        parts[i] = tostring(parts[i])
    end
    return host.print(concat(parts, "\t"))
end

string.format = function(pattern, ...)
    local count = select("#", ...)
    local values = { ... }
    for i = 1, count do
        if type(values[i]) == "table" then
            values[i] = tostring(values[i])
        end
    end
    return format(pattern, table.unpack(values, 1, count))
end

local text_of_type = host.type

function setmetatable(value, meta)
    if type(meta) == "table" and rawget(meta, "__gc") ~= nil then
        return raise(host.fault("finalizers (__gc) don't exist here", "use a variable with <close>"))
    end
    return set_metatable(value, meta)
end

function load(text, name, _, ...)
    if type(text) ~= "string" then
        return raise(host.fault("load() takes text, not a " .. text_of_type(text)))
    end
    name = type(name) == "string" and name or "=load"
    if select("#", ...) > 0 then
        return load_text(text, name, "t", (...))
    end
    return load_text(text, name, "t", _G)
end

function collectgarbage(what)
    if what == "count" then
        return collect("count")
    end
    collect("collect")
    return 0
end

local system = os
os = { clock = system.clock, date = system.date, difftime = system.difftime, time = system.time }
string.dump, dofile, loadfile, warn = nil, nil, nil, nil
null = host.null

local kinds = host.kinds

-- A type's functions, made when they are first used.
local function member(self, key, kind)
    local what, begin = host.member(self, key)
    if what == "field" then
        return begin
    elseif what == "property" then
        kind.properties[key] = bind(begin)
        return kind.properties[key](self)
    elseif what == "function" then
        kind.functions[key] = bind(begin)
        return kind.functions[key]
    end
    return error(begin, 0)
end

host.index = function(self, key)
    local name = host.kind(self)
    local kind = kinds[name]
    if not kind then
        kind = { functions = {}, properties = {} }
        kinds[name] = kind
    end
    local found = kind.functions[key]
    if found then
        return found
    end
    local read = kind.properties[key]
    if read then
        return read(self)
    end
    return member(self, key, kind)
end

host.set = function(self, key)
    return error(host.not_set(self, key), 0)
end

host.call = function(self)
    local ok, problem = host.iterable(self)
    if not ok then
        return error(problem, 0)
    end
    return host.index(self, "next")(self)
end

local leave = bind(host.leave)
host.close = function(self)
    -- Where nothing can wait, the end of the run does it.
    if yieldable() then
        return leave(self)
    end
end

host.concat = function(left, right)
    return tostring(left) .. tostring(right)
end

-- Walks by key, as every language does.
local function ordered(map)
    local keys = {}
    for key in next, map do
        keys[#keys + 1] = key
    end
    sort(keys, function(a, b)
        return plain_tostring(a) < plain_tostring(b)
    end)
    local at = 0
    return function()
        at = at + 1
        local key = keys[at]
        if key ~= nil then
            return key, rawget(map, key)
        end
    end
end

host.map_meta = { __pairs = ordered, __metatable = "map" }
host.record_meta = {
    __pairs = ordered,
    __metatable = "map",
    __index = function(map, key)
        local empty = absent[map]
        if empty and empty[key] then
            return nil
        end
        return error(host.unknown_key(map, key), 0)
    end,
}

for name, library in next, { coroutine = coroutine, math = math, os = os, string = string, table = table, utf8 = utf8 } do
    set_metatable(library, {
        __index = function(_, key)
            return error(host.unknown_in_library(name, library, key), 0)
        end,
        __metatable = "library",
    })
end

for name, begin in next, host.functions do
    rawset(_G, name, bind(begin))
end

set_metatable(_G, {
    __index = function(_, name)
        return error(host.unknown_global(name), 0)
    end,
    __metatable = "globals",
})

-- What modules gave, by file, and for each coroutine the modules that it reads now.
local modules, reading = {}, set_metatable({}, weak)

local function leave_module(chain, ok, ...)
    chain[#chain], chain[#chain - 1] = nil, nil
    if ok then
        return ...
    end
    return error((...), 0)
end

local function keep_module(id, name, standard, value)
    if modules[id] == nil then
        if standard then
            set_metatable(value, {
                __index = function(_, key)
                    return error(host.unknown_in_library(name, value, key), 0)
                end,
                __metatable = "library",
            })
        end
        modules[id] = value == nil and true or value
    end
    return modules[id]
end

function require(name)
    local id, problem = host.find_module(name)
    if id == nil then
        return error(problem, 0)
    end
    if modules[id] ~= nil then
        return modules[id]
    end
    local co = running()
    local chain = reading[co] or {}
    reading[co] = chain
    local chunk, standard = host.read_module(id, name, chain)
    if chunk == nil then
        return error(standard, 0)
    end
    chain[#chain + 1] = id
    chain[#chain + 1] = name
    return keep_module(id, name, standard, leave_module(chain, protected(chunk, host.ended, name)))
end

-- Runs a body on a thread that the host drives.
return function(f, ...)
    bodies[running()] = true
    return protected(f, host.ended, ...)
end
