local py = base("py", function(b)
    b:write("/etc/pip.conf", "[global]\nindex-url = https://pip.mirror.test/simple\n")
    b:write("/etc/apt/sources.list.d/corp.sources", "Types: deb\nURIs: http://apt.mirror.test:8080/debian\nSuites: x\n")
    b:write("/etc/npmrc", "registry=https://npm.mirror.test/\n")
end)
local box = sandbox("box", { from = py, egress = { preset = "registries", allow = { "a.test" } } })
for _, rule in ipairs(box:egress().preset_rules) do print(rule) end
-- What the guest writes changes nothing.
box:write("/etc/pip.conf", "[global]\nindex-url = https://evil.test/simple\n")
box:set_egress("none")
box:set_egress("registries")
for _, rule in ipairs(box:egress().preset_rules) do print(rule) end
print(#box:refresh_egress())
local copy = box:clone({ name = "copy", egress = "registries" })
print(#copy:egress().preset_rules)
local asked = 0
for _, one in ipairs(sandboxes()) do if one.name:find("^ask%-") then asked = asked + 1 end end
print(asked)
