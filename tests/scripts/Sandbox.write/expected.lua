text
true
true
option 'mode' of Sandbox.write(): "rwx" is no file mode
write it as 0o644 or "644"
option 'mode' of Sandbox.write(): 99999 is no file mode
error: 'content' of Sandbox.write() must be a string or bytes, or a Secret, got int 5
  --> case.lua:11:5
    |
 11 | box:write("/tmp/f", 5)
    |     ^^^^^
  hint: it is Sandbox.write(path: string, content: string | bytes | Secret, options?: map)
