false
3 passed, 1 failed of 4
db=sqlite,n=1: passed 
db=sqlite,n=2: passed 
db=postgres,n=1: passed 
db=mysql,n=9: failed 'echo broken >&2; exit 3' failed: exit code 3 (at case.lua:11:45)
mysql
broken

