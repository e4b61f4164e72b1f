0
0
0
error: sandbox 'box' not found
  --> case.lua:7:5
   |
 7 | box:egress_log()
   |     ^^^^^^^^^^
  hint: this script has deleted it; its handle is of no more use
