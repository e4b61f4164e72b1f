local box = sandbox("a")
local took = box:exec("sleep 0.05").duration
print(took >= 0.01 and took < 5.0)
