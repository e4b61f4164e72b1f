local _, e = pcall(open, "nowhere")
print(e.message)
print(e)
