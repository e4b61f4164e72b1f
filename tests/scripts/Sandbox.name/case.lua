print(sandbox("a").name)
print(sandbox("b").nam)
