true
1 passed, 2 flaky
n=1: passed at attempt 1; 
n=2: flaky at attempt 2; it passed at attempt 2; the one before: attempt 1 of cell 2 (at case.lua:4:35)
n=3: flaky at attempt 3; it passed at attempt 3; the one before: attempt 2 of cell 3 (at case.lua:4:35)
failed after 2: attempt 2 (at case.lua:11:76)
