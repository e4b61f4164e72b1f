print(json_stringify({ b = { 1, 2.0, null, "x" }, a = true }))
print(json_stringify({ 1 }, { pretty = true }))
json_stringify(sandbox("a"))
