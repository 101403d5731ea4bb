"""Hugging Face model folders, both ways: `importing.import_folder` and `exporting.export_directory`.

No transformers here: config.json is JSON, weights are safetensors or torch files, tokenizers go through our own room.

    layout        file names of such a folder
    folder        config.json and the weight files, checked before a tensor is read
    rules         one weight there <-> one weight here: same, transposed, joined, interleaved
    settings      the typed look into config.json that says what is missing or unknown
    gpt2 llama gemma neox      the architectures: settings and names, both ways
    families      which of them a folder has, or a model can be written as
    vocabulary    the tokenizer's files, in and out
    sentencepiece_json         a SentencePiece model as tokenizer.json
    importing exporting        the two doors
"""
