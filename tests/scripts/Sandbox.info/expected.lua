a
running
h
0.5
{A: "1"}
{team: "x"}
none

[]
error: the map has no 'hostnam'
  --> case.lua:11:12
    |
 11 | print(info.hostnam)
    |            ^^^^^^^
  hint: did you mean 'hostname'?
