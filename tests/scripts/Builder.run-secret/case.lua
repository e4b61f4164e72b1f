local token = secret("API_TOKEN")
local function build(command, options)
    return base("b", function(b) b:run(command, options) end).hits
end
print(build("echo $TOKEN > /length", { env = { TOKEN = token } }))
print(build("echo $TOKEN > /length", { env = { TOKEN = token } }))
print(build("cat > /length", { stdin = token }))
print(build("cat > /length", { stdin = token }))
print(build("echo $TOKEN > /length", { env = { TOKEN = "plain" } }))
for _, box in ipairs(sandboxes()) do
    for _, snapshot in ipairs(box:snapshots()) do
        assert(not json_stringify(snapshot.labels):find(env("API_TOKEN"), 1, true))
        if snapshot.labels["sandscript.record"]:find("API_TOKEN") then print("the name is known") end
    end
end
