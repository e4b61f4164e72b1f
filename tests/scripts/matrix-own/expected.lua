debian/12/memory=64MiB debian/12 67108864 false
debian/12/memory=128MiB debian/12 134217728 false
tools/memory=64MiB fake 67108864 true
tools/memory=128MiB fake 134217728 true
n=1 own 33554432   (at case.lua:18:5)
n=2 none 268435456  two (at case.lua:18:5)
n=3 tools 33554432 50  (at case.lua:18:5)
n=4 none 33554432   (at case.lua:18:5)
'memory' of a cell must be a size, got "much"
a cell has no option 'memmory'
the function in option 'options' of matrix() must give a map, got 3 (cell 'n=1')
no options
option 'axes' of matrix(): 'n' holds a Base
