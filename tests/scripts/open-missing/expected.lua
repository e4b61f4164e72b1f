error: sandbox 'nowhere' not found
  --> case.lua:1:1
   |
 1 | open("nowhere")
   | ^^^^
  hint: sandbox("nowhere") makes it
