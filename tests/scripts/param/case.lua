-- set: jobs=8
-- set: fast=yes
-- set: list=a, b
-- set: ratio=1.5
print(param("jobs", 2) + 1)
print(param("fast", false))
print(param("list", {}))
print(param("ratio", 1.0))
print(param("name", "none", "who it is for"))
print(param("jobs"))
local _, e = pcall(param, "jobs", true)
print(e)
print(e.hint)
param("must", nil, "what it must be")
