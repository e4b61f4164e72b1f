local known = { jobs = 1, clean = true, args = { "a" } }
print(check_options({}, known))
print(check_options({ jobs = 4, args = { "x" } }, known))
print(check_options({ only = "a" }, known, { "only" }))
local function try(...)
  local _, e = pcall(check_options, ...)
  return e
end
local e = try({ jbos = 4 }, known)
print(e.message) print(e.hint)
print(try({ zebra = 4 }, known, { "only" }).hint)
print(try({ clean = 1 }, known).message)
print(try({ jobs = { "x" } }, known).message)
