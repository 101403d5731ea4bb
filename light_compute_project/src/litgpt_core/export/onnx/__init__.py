"""A checkpoint as an ONNX graph with a KV cache, in a folder that onnxruntime-genai, optimum and transformers.js read.

graph         nodes and constants of a graph
matrices      how matrices are stored: float32, or integers with a scale for every 32 of them
step          the model as a graph: tokens and caches in, logits and caches out
layouts       config.json, genai_config.json, tokenizer
exporting     the folder, written completely or not at all
checking      what onnxruntime computes with it
"""
