error: did not like out
  --> case.lua:3:5
   |
 3 |     error("did not like " .. line)
   |     ^^^^^
  in a function called at case.lua:5:9
