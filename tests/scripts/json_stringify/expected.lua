{"a":true,"b":[1,2.0,null,"x"]}
[
  1
]
error: JSON can't hold a Sandbox
  --> case.lua:3:1
   |
 3 | json_stringify(sandbox("a"))
   | ^^^^^^^^^^^^^^
  hint: put only nothing, bool, int, float, string, list and map into it
