local _, e = pcall(open, "nowhere")
print(e.hint)
_, e = pcall(assert, false)
print(e.hint or "")
