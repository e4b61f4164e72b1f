print(env("GREETING"))
print(env("MISSING", "default"))
print(env("MISSING", nil))
