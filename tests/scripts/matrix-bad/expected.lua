axes: axis 'n' has no values
option 'axes' of matrix(): 'n' holds a list
option 'axes' of matrix() must be a map, got list [1]
option 'axes' of matrix(): 'id' is what a cell has by itself
exclude: 'm' is not an axis
option 'parallel' of matrix(): no cell could run
unknown option 'axis' of matrix()
its sandbox could not be made: image 'no-such-image' not found
option 'timeout' of matrix(): 'x' is not a duration
error: matrix() needs 'body': a function that takes one argument (cell)
  --> case.lua:10:1
    |
 10 | matrix("m", { axes = { n = { 1 } } })
    | ^^^^^^
  hint: it is matrix(name: string, options?: map, body: fn(cell: Cell)) -> map
