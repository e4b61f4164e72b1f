caches: 'a/b' is not a name of a cache
caches: target 'c' is not an absolute path without '..'
caches: target '/proc' belongs to the kernel
caches: target '/x' is given twice
cache 'a': 'path' must be a string
cache 'a': 'share' must be true or false
error: caches: target 'relative' is not an absolute path without '..'
  --> case.lua:5:37
   |
 5 | matrix("m", { axes = { n = { 1 } }, caches = { a = "relative" } }, function(cell) end)
   |                                     ^^^^^^
