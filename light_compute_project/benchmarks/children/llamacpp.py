"""llama.cpp, through xllamacpp: `generate` on a file that is written first; its server.

Its own `timings` of the prompt and of the tokens are read. xllamacpp's wheel is built for old processors too (AVX2 at
most); `system_info` of the result says what it uses.
"""

from __future__ import annotations

import importlib
import signal
import sys
import time
from pathlib import Path
from typing import Any


def generate(job: dict[str, Any]) -> dict[str, Any]:
    """Write, load, generate greedily, time."""
    xllamacpp = importlib.import_module("xllamacpp")
    path = Path("model.gguf")
    if job["random"]:
        write_gguf(path, shape=job["model"], kind=job["kind"].upper(), vocab_size=job["vocab_size"])
    else:
        export({**job, "file": str(path)})
    written = time.time()
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = job["model"]["block_size"]
    params.n_parallel = 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = job["threads"]
    params.n_gpu_layers = 0 if job["device"] == "cpu" else 999
    params.verbosity = 1
    server = xllamacpp.Server(params)

    def once(count: int) -> dict[str, Any]:
        request = {
            "prompt": job["prompt_ids"],
            "n_predict": count,
            "temperature": 0.0,
            "ignore_eos": True,
            "cache_prompt": False,
        }
        timings: dict[str, Any] = server.handle_completions(request)["timings"]
        return timings

    once(1)
    start_to_first = time.time() - written
    warm_up = once(job["new_tokens"])
    timed = [once(job["new_tokens"]) for _ in range(job["repeats"])]
    return {
        "load_to_first_s": start_to_first,
        "warm_up_s": (warm_up["prompt_ms"] + warm_up["predicted_ms"]) / 1000,
        "first_s": [one["prompt_ms"] / 1000 for one in timed],
        "total_s": [(one["prompt_ms"] + one["predicted_ms"]) / 1000 for one in timed],
        "new_tokens": [one["predicted_n"] for one in timed],
        "system_info": str(xllamacpp.get_system_info()),
    }


def serve(job: dict[str, Any]) -> None:
    """llama.cpp's own HTTP server on `port`, until this process is terminated."""
    xllamacpp = importlib.import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = job["file"]
    params.n_parallel = job["slots"]
    params.n_ctx = job["slots"] * job["context"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = job["threads"]
    params.n_gpu_layers = 0
    params.hostnames, params.port = ["127.0.0.1"], job["port"]
    params.n_threads_http = job["slots"] + 2  # one for each stream, so that none waits for another
    params.ui, params.verbosity = False, 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server = xllamacpp.Server(params)
    sys.stdout.write(f"{server.listening_address} {xllamacpp.get_system_info()}\n")
    sys.stdout.flush()
    signal.pause()


def export(job: dict[str, Any]) -> dict[str, Any]:
    """The checkpoint as a GGUF file, by this project's exporter."""
    from litgpt_core.export.gguf.exporting import export_gguf

    done = export_gguf(job["checkpoint"], Path(job["file"]), type=job["kind"], check=False)
    return {"architecture": done.architecture, "type": done.type, "n_bytes": done.n_bytes}


def write_gguf(path: Path, *, shape: dict[str, Any], kind: str, vocab_size: int) -> None:
    """A GPT-2 or Llama with random matrices as `kind` (F16, Q8_0 or Q4_0); the embedding is the head, Q8_0 for Q4_0."""
    import numpy as np

    gguf = importlib.import_module("gguf")
    width, layers, rows = shape["n_embd"], shape["n_layer"], shape["padded_vocab_size"]
    llama = shape["mlp_class_name"] == "LLaMAMLP"
    random = np.random.default_rng(1337)
    writer = gguf.GGUFWriter(str(path), "llama" if llama else "gpt2")
    writer.add_context_length(shape["block_size"])
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(shape["intermediate_size"])
    writer.add_head_count(shape["n_head"])
    if llama:
        writer.add_head_count_kv(shape["n_query_groups"])
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_rope_freq_base(shape["rope_base"])
    else:
        writer.add_layer_norm_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([f"t{index}" for index in range(rows)])
    writer.add_token_types([1] * rows)
    writer.add_token_merges(["t 0"])
    writer.add_eos_token_id(vocab_size - 1)

    def matrix(name: str, *size: int, kind: str = kind) -> None:
        quantization = getattr(gguf.GGMLQuantizationType, kind)
        values = (random.standard_normal(size, dtype=np.float32) * 0.02).astype(np.float32)
        writer.add_tensor(f"{name}.weight", gguf.quants.quantize(values, quantization), raw_dtype=quantization)
        if not llama and name.startswith("blk"):
            vector(f"{name}.bias", size[0], 0.0)

    def vector(name: str, size: int, value: float) -> None:
        writer.add_tensor(name, np.full(size, value, dtype=np.float32))

    def norm(name: str) -> None:
        vector(f"{name}.weight", width, 1.0)
        if not llama:
            vector(f"{name}.bias", width, 0.0)

    matrix("token_embd", rows, width, kind="Q8_0" if kind == "Q4_0" else kind)
    if not llama:
        positions = random.standard_normal((shape["block_size"], width), dtype=np.float32) * 0.02
        writer.add_tensor("position_embd.weight", positions.astype(np.float32))
    for layer in range(layers):
        norm(f"blk.{layer}.attn_norm")
        norm(f"blk.{layer}.ffn_norm")
        for name, size in _matrices(shape, llama=llama).items():
            matrix(f"blk.{layer}.{name}", *size)
    norm("output_norm")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _matrices(shape: dict[str, Any], *, llama: bool) -> dict[str, tuple[int, int]]:
    """Names and shapes of the matrices of a block."""
    width, hidden = shape["n_embd"], shape["intermediate_size"]
    feed_forward = {"ffn_up": (hidden, width), "ffn_down": (width, hidden)}
    if not llama:
        return {"attn_qkv": (3 * width, width), "attn_output": (width, width), **feed_forward}
    narrow = width * shape["n_query_groups"] // shape["n_head"]
    attention = {"attn_q": (width, width), "attn_k": (narrow, width), "attn_v": (narrow, width)}
    return {**attention, "attn_output": (width, width), "ffn_gate": (hidden, width), **feed_forward}
