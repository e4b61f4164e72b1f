{a: [1, 2.5, (), "x"], b: {c: true}}
2.5
true
error: the text is not JSON: key must be a string at line 1 column 3
  --> case.lua:5:1
   |
 5 | json_parse("{ nope")
   | ^^^^^^^^^^
