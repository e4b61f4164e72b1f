kind=assert: failed: numbers (at case.lua:3:29)
the two are not equal
left:  1
right: 2
kind=missing: failed: file '/missing' not found (at case.lua:4:43)
kind=throw: failed: thrown (at case.lua:5:28)
kind=timeout: timed_out: the cell timed out after 200ms
kind=typo: failed: Cell has no property 'kin' (at case.lua:7:38)
