one
one
two
file '/data/nothing' not found
error: '/tmp/sandscript-should-not-be-there' lies outside the project folder PROJECT
  --> case.lua:12:5
    |
 12 | box:pull("/data/f", "/tmp/sandscript-should-not-be-there")
    |     ^^^^
  hint: allow it with --allow-path /tmp/sandscript-should-not-be-there
