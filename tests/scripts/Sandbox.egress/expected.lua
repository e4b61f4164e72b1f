none
allowlist
deny x.example.com
*.example.com:443
10.0.0.0/8
git
deny gist.github.com
b.test
git (deny gist.github.com, b.test)
allowlist (a.test)
egress: there is no policy or preset 'agnet'
did you mean 'agent'?
egress: 'example.com' is a rule, not a policy
an allowlist is a list of rules: ["example.com"]
egress: 'http://a.test' is not a rule: 'http' is neither tcp nor udp
write a name ("example.com", "*.example.com") or a network ("10.1.0.0/16"), with ":PORT" or ":FIRST-LAST" after it and "tcp://" or "udp://" before it where that matters
unknown key 'presett' of an egress policy
did you mean 'preset'?
'allow' must be a list of rules, each a string, got 3
write it as #{ preset: "agent", allow: ["example.com"], deny: ["*.example.org"] }
egress: 'deny a.test' stands among what is allowed
put it into deny
error: option 'egress' of sandbox() must be a string, or a list; each item a string, or a map, got int 3
  --> case.lua:22:20
    |
 22 | sandbox("wrong", { egress = 3 })
    |                    ^^^^^^
