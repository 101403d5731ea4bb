"""llama.cpp, through xllamacpp: `generate` on a GPT-2 with random weights that is written as GGUF first; its server.

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
    write_gguf(path, shape=job["model"], kind=job["kind"], vocab_size=job["vocab_size"])
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
    """A GPT-2 with random matrices as `kind` (F16, Q8_0 or Q4_0); vectors and positions are F32."""
    import numpy as np

    gguf = importlib.import_module("gguf")
    width, layers, hidden = shape["n_embd"], shape["n_layer"], shape["intermediate_size"]
    rows = shape["padded_vocab_size"]
    quantization = getattr(gguf.GGMLQuantizationType, kind)
    random = np.random.default_rng(1337)
    writer = gguf.GGUFWriter(str(path), "gpt2")
    writer.add_context_length(shape["block_size"])
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(shape["n_head"])
    writer.add_layer_norm_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([f"t{index}" for index in range(rows)])
    writer.add_token_types([1] * rows)
    writer.add_token_merges(["t 0"])
    writer.add_eos_token_id(vocab_size - 1)

    def matrix(name: str, *size: int) -> None:
        values = (random.standard_normal(size, dtype=np.float32) * 0.02).astype(np.float32)
        writer.add_tensor(name, gguf.quants.quantize(values, quantization), raw_dtype=quantization)

    def vector(name: str, size: int, value: float) -> None:
        writer.add_tensor(name, np.full(size, value, dtype=np.float32))

    matrix("token_embd.weight", rows, width)
    positions = random.standard_normal((shape["block_size"], width), dtype=np.float32) * 0.02
    writer.add_tensor("position_embd.weight", positions.astype(np.float32))
    for layer in range(layers):
        for norm in ("attn_norm", "ffn_norm"):
            vector(f"blk.{layer}.{norm}.weight", width, 1.0)
            vector(f"blk.{layer}.{norm}.bias", width, 0.0)
        sizes = {
            "attn_qkv": (3 * width, width),
            "attn_output": (width, width),
            "ffn_up": (hidden, width),
            "ffn_down": (width, hidden),
        }
        for name, (out, into) in sizes.items():
            matrix(f"blk.{layer}.{name}.weight", out, into)
            vector(f"blk.{layer}.{name}.bias", out, 0.0)
    vector("output_norm.weight", width, 1.0)
    vector("output_norm.bias", width, 0.0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
