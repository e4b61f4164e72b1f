error: the lists
  the two are not equal
  left:  [1, "a"]
  right: [1, "b"]
  --> case.lua:3:1
   |
 3 | assert_eq({ 1, "a" }, { 1, "b" }, "the lists")
   | ^^^^^^^^^
