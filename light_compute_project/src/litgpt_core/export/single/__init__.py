"""A model in one file that needs nothing else: `.py`, `.html`, or arrays (safetensors, .npz, JSON).

arrays          weights by name, config and tokenizer inside; read by the libraries alone
python_file     a program for Python alone; python_main is what runs in it
web_page        a page for a browser, from page.html and engine.js
checkpoint      what all of them read
"""
