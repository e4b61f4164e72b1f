Host.call() takes 1 or 2 arguments, got 0
'params' of Host.call() must be a list, got string "b"
error: JSON can't hold a function
  --> case.lua:8:5
   |
 8 | nas:call("a", { function() return 1 end })
   |     ^^^^
  hint: put only nothing, bool, int, float, string, list and map into it
