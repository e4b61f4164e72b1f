sandbox("gone")
local box = sandbox("stays")
box:keep()
sandbox("stays-too", { keep = true })
