allowlist (a.test:443, udp://192.0.2.1:123)
egress: 'http://a.test' is not a rule: 'http' is neither tcp nor udp
write a name ("example.com", "*.example.com") or a network ("10.1.0.0/16"), with ":PORT" or ":FIRST-LAST" after it and "tcp://" or "udp://" before it where that matters
error: 'rule' of Sandbox.allow() must be a string, or a list; each item a string, got int 3
  --> case.lua:8:5
   |
 8 | box:allow(3)
   |     ^^^^^
  hint: it is Sandbox.allow(rule: string | list<string>)
