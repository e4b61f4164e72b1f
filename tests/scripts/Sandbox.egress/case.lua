local closed = sandbox("closed")
print(closed:egress().policy)
local list = sandbox("list", { egress = { "deny x.example.com", "*.example.com:443", "10.0.0.0/8" } })
print(list:egress().policy)
for _, rule in ipairs(list:egress().rules) do print(rule) end
local git = sandbox("git", { egress = { preset = "git", allow = { "b.test" }, deny = { "gist.github.com" } } })
local policy = git:egress()
print(policy.preset)
for _, rule in ipairs(policy.rules) do print(rule) end
local found = false
for _, rule in ipairs(policy.preset_rules) do found = found or rule == "github.com:443" end
assert(found)
local twin = git:clone({ name = "twin" })
print(twin:info().egress)
local other = git:clone({ name = "other", egress = { "a.test" } })
print(other:info().egress)
for _, wrong in ipairs({ "agnet", "example.com", { "http://a.test" }, { presett = "git" }, { preset = "git", allow = { 3 } }, { allow = { "deny a.test" } } }) do
    local _, e = pcall(sandbox, "wrong", { egress = wrong })
    print(e.message)
    print(e.hint)
end
sandbox("wrong", { egress = 3 })
