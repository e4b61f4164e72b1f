tools is built
kind=bad: failed 1: what it starts from could not be made: 'echo it is broken; exit 3' failed in base 'bad': exit code 3 (at case.lua:2:70) it is broken

kind=image: passed 1:  
kind=late: passed 1:  
kind=none: passed 1:  
kind=throws: failed 1: what it starts from could not be made: no idea (at case.lua:9:39) 
kind=tools: passed 1:  
2
error: 'from' of a cell must be an image, a base or a sandbox, got 5
  --> case.lua:18:19
    |
 18 | matrix("wrong", { from = function(cell) return 5 end, axes = { n = { 1 } } }, function(cell) end)
    |                   ^^^^
