print(#members())
matrix("m", { axes = { n = { 1 } }, options = function(cell) return { backend = "fake", host = "cluster" } end }, function(cell)
    for _, member in ipairs(members()) do print(member.name .. " " .. json_stringify(member.groups) .. " " .. member.state .. " " .. member.cpus .. " " .. member.load) end
end)
