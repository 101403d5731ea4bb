"""A model in one file that needs nothing else: `.py`, or arrays (safetensors, .npz, JSON). The page is in `web`.

arrays          weights by name, config and tokenizer inside; read by the libraries alone
python_file     a program for Python alone; python_main is what runs in it
checkpoint      what all of them read
"""
