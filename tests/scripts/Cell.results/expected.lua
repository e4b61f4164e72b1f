kind=junit: 1 passed, 1 failed ["b"], 1 skipped of 3 (at case.lua:7:5)
kind=libtest: 1 passed, 1 failed ["b"], 0 skipped of 2 (at case.lua:7:5)
kind=missing: file '/tmp/results' not found (at case.lua:6:24)
kind=wrong: /tmp/results: results: the report can't be read: no line of it is a test's (at case.lua:6:24)
