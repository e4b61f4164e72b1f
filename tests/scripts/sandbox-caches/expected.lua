0
npm
left by a
left by a
error: cache 'pip': unknown key 'shar'
  --> case.lua:13:48
    |
 13 | sandbox("d", { caches = { pip = { path = "/c", shar = true } } })
    |                                                ^^^^
  hint: did you mean 'share'?
