body: setup body

both: setup body

fine: setup body

setup: setup 
skip: setup body

slow: setup body

teardown: setup body

kind=body: failed no body (at case.lua:16:56)
kind=both: failed no body (at case.lua:16:56)
kind=fine: passed 
kind=setup: failed the setup failed: no setup (at case.lua:6:38)
kind=skip: skipped nothing to do
kind=slow: timed_out the cell timed out after 300ms
kind=teardown: failed the teardown failed: no teardown (at case.lua:10:64)
