<secret API_TOKEN>
it says ***

***
***
in base64: dXNlcjp***M=
in a URL: ***
'echo $TOKEN >&2; exit 3' failed: exit code 3
***
***
error: not ***
  --> case.lua:20:1
    |
 20 | fail("not " .. env("API_TOKEN"))
    | ^^^^
