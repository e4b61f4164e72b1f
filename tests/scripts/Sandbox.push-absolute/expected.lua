error: '/etc/passwd' lies outside the project folder PROJECT
  --> case.lua:1:14
   |
 1 | sandbox("a"):push("/etc/passwd", "/x")
   |              ^^^^
  hint: allow it with --allow-path /etc/passwd
