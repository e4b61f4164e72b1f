error: argument 'name' of secret(): 'no such' is no name of a secret
  --> case.lua:1:1
   |
 1 | secret("no such")
   | ^^^^^^
  hint: use letters, digits, '_', '-' and '.'
