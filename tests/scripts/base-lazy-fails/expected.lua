bad is tried
'exit 3' failed in base 'bad': exit code 3
'exit 3' failed in base 'bad': exit code 3
'exit 3' failed in base 'bad': exit code 3
0
good

error: 'bases' of build_bases() must be a list; each item a Base, got list ["good"]
  --> case.lua:10:1
    |
 10 | build_bases({ "good" })
    | ^^^^^^^^^^^
  hint: it is build_bases(bases: list<Base>)
