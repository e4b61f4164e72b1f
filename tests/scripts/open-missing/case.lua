open("nowhere")
