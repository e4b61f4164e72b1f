deps
app

1 of 2
deps

level

1
error: name: there is a snapshot point 'one' already
  --> case.lua:14:27
    |
 14 | base("app", function(b) b:snapshot("one") b:snapshot("one") end)
    |                           ^^^^^^^^
  in a function called at case.lua:14:1
