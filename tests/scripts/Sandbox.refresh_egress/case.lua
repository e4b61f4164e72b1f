local box = sandbox("box", { egress = "git" })
print(#box:refresh_egress())
box:set_egress({ "a.test" })
box:refresh_egress()
