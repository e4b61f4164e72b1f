false
1 passed, 1 as expected, 1 failed
db=mysql: expected_failure 1 not ported yet: 'exit 3' failed: exit code 3 (at case.lua:3:45)
db=oracle: failed 3 it passed, but was expected to fail: not ported yet
db=sqlite: passed 1 
expect_fail() is called outside of a cell
