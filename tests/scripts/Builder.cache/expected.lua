one

one
two

one
two

error: caches: 'pip' is given twice
  --> case.lua:11:7
    |
 11 |     b:cache("pip", "/b")
    |       ^^^^^
  in a function called at case.lua:9:1
