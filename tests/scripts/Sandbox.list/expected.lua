file a
file b
dir sub
error: file '/nowhere' not found
  --> case.lua:6:5
   |
 6 | box:list("/nowhere")
   |     ^^^^
