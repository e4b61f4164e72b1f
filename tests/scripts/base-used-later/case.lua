local kept
base("cc", function(b) b:run("true") kept = b end)
kept:run("true")
