"""GGUF files, the format of llama.cpp and Ollama, in and out: `importing.import_gguf` and `exporting.export_gguf`.

Nothing of llama.cpp is needed to read or write: the file is parsed and written here, and quantized types are computed
by numpy.

    layout             numbers and names of the format: value types, tensor types, keys
    header             a file's metadata and tensor descriptions, every length checked before it is used
    writing            the same parts written
    quantization       blocks <-> float32 for F16, BF16, Q4_0 ... Q8_0; k_quants reads Q2_K ... Q6_K
    architecture       what an architecture is: keys <-> settings, names, what differs in the numbers
    llama gemma neox   the architectures; `architectures` lists them
    pretokenizers      how text is cut into words, by the file's name for it
    vocabulary_in      the file's tokenizer as tokenizer.json
    importing          the entry point for reading; `cached` keeps the result for commands that take a file
"""
