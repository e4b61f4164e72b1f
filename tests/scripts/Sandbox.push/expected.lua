hello

deep

hello.txt
renamed
true
.gitignore
hello.txt
not_found
file 'PROJECT/missing' not found
"" is not a host path
error: '../elsewhere' lies outside the project folder PROJECT
  --> case.lua:15:5
    |
 15 | box:push("../elsewhere", "/x")
    |     ^^^^
  hint: allow it with --allow-path PROJECT/../elsewhere
