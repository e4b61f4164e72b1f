local box = sandbox("a")
print(box:exec("printf 'a\\nb'").stdout)
