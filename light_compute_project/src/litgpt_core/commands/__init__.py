"""The commands behind `lcp`, one module each, with a function `main(arguments) -> exit code`.

They parse, call one function of the library and print. Slow imports stand inside the functions, so that `--help`
answers without torch.
"""
