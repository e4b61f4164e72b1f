clean
{why: "test"}
0.0
already_exists
snapshot 'clean' exists already
error: label: 'not a label' is not a snapshot label
  --> case.lua:9:5
   |
 9 | box:snapshot("not a label")
   |     ^^^^^^^^
  hint: use 1 to 63 of A-Z, a-z, 0-9, '.', '_' and '-', starting with a letter or a digit
