"""Import and export of Hugging Face model folders: `importing.import_folder` and `exporting.export_directory`.

Does not use transformers: config.json is JSON, weights are safetensors or torch files, tokenizers are handled by our
`tokenizers` package.

    layout        file names of such a folder
    folder        config.json and the weight files, checked before a tensor is read
    rules         one weight there <-> one weight here: same, transposed, joined, interleaved
    settings      typed access to config.json, with errors for missing or unknown settings
    gpt2 llama gemma neox      the architectures: settings and names, for import and export
    families      chooses the architecture of a folder or of a model
    vocabulary    the tokenizer's files, for import and export
    sentencepiece_json         a SentencePiece model as tokenizer.json
    importing exporting        the entry points
"""
