error: snapshot 's1' not found
  --> case.lua:5:5
   |
 5 | box:delete_snapshot("s1")
   |     ^^^^^^^^^^^^^^^
