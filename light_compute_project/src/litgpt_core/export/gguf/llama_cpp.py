"""llama.cpp as an independent reader of GGUF files, through the package xllamacpp.

It runs in a process of its own, because llama.cpp ends the process on a file that it cannot use. Without flash
attention and with float32 caches, so that only the arithmetic of its matrix products differs from torch's.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

INSTALL = "pip install xllamacpp installs llama.cpp, which would check the file"
_LIMIT_S = 900


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What llama.cpp says about a file."""

    ids: list[list[int] | None]
    """Of each text; None where it refused."""
    greedy: list[int]
    """Tokens after the prompt."""
    most_probable: list[dict[int, float]]
    """For each prefix, the log-probabilities of the most probable next tokens; empty where they are bytes of a
    character, for which llama.cpp's server gives none."""
    error: str = ""
    """Why it could not read the file; the rest is then empty."""


def reader_name() -> str | None:
    """`llama.cpp (xllamacpp VERSION)` if it is installed."""
    try:
        return f"llama.cpp (xllamacpp {version('xllamacpp')})"
    except PackageNotFoundError:
        return None


def ask(
    file: Path,
    *,
    texts: Sequence[str],
    prompt: Sequence[int],
    n_tokens: int,
    prefixes: Sequence[Sequence[int]],
    special: bool,
) -> Answers:
    """Ask llama.cpp in another process.

    Args:
        texts: To be tokenized.
        prompt: Ids to continue greedily.
        n_tokens: How many tokens.
        prefixes: Ids after which the most probable tokens are requested.
        special: Whether special tokens are parsed in text.
    """
    job = {"texts": list(texts), "prompt": list(prompt), "n_tokens": n_tokens, "special": special}
    job["prefixes"] = [list(prefix) for prefix in prefixes]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "litgpt_core.export.gguf.llama_cpp", str(file)],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    try:
        found = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        said = [line for line in done.stderr.splitlines() if line.strip()]
        return Answers(
            ids=[], greedy=[], most_probable=[], error=" / ".join(said[-3:])[:400] or f"exit {done.returncode}"
        )
    return _answers(found)


def _answers(found: dict[str, Any]) -> Answers:
    most_probable = [{int(key): value for key, value in each.items()} for each in found["most_probable"]]
    return Answers(ids=found["ids"], greedy=found["greedy"], most_probable=most_probable)


class LlamaCpp:
    """A file loaded by llama.cpp in this process, behind its own HTTP server on this machine."""

    def __init__(self, file: Path, *, context: int = 512, threads: int = 1) -> None:
        """Raises whatever xllamacpp raises for a file that it refuses."""
        library = importlib.import_module("xllamacpp")
        params = library.CommonParams()
        params.model.path = str(file)
        params.n_ctx, params.n_parallel, params.n_gpu_layers = context, 1, 0
        params.warmup = params.cache_prompt = params.ui = False
        params.verbosity = -1
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.flash_attn_type = library.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.cache_type_k = params.cache_type_v = library.ggml_type.GGML_TYPE_F32
        self.server = library.Server(params)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """One request."""
        request = urllib.request.Request(
            f"{self.server.listening_address}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=300) as response:
            return json.load(response)

    def ids(self, text: str, *, special: bool = False) -> list[int] | None:
        """Token ids, without bos; None where it refuses the text."""
        try:
            body = {"content": text, "add_special": False, "parse_special": special}
            found: list[int] = self.post("/tokenize", body)["tokens"]
            return found
        except urllib.error.HTTPError:
            return None

    def greedy(self, prompt: Sequence[int], n_tokens: int) -> list[int]:
        """New tokens; it does not stop at eos."""
        found: list[int] = self._complete(prompt, n_tokens)["tokens"]
        return found

    def most_probable(self, prefix: Sequence[int], *, count: int = 5) -> dict[int, float]:
        """Log-probabilities of the most probable next tokens; empty where the next is a part of a character."""
        steps = self._complete(prefix, 1, n_probs=count, cache_prompt=True).get("completion_probabilities", [])
        return {top["id"]: top["logprob"] for top in steps[0]["top_logprobs"]} if steps else {}

    def _complete(self, prompt: Sequence[int], n_tokens: int, **more: Any) -> dict[str, Any]:
        fixed = {"temperature": 0, "return_tokens": True, "ignore_eos": True, "cache_prompt": False}
        body = {**fixed, "prompt": list(prompt), "n_predict": n_tokens, **more}
        found: dict[str, Any] = self.post("/completion", body)
        return found


def main(arguments: Sequence[str]) -> int:
    """Answer the job on standard input."""
    job = json.load(sys.stdin)
    longest = max([len(job["prompt"]) + job["n_tokens"], *map(len, job["prefixes"])])
    model = LlamaCpp(Path(arguments[0]), context=longest + 8)
    answers = {
        "ids": [model.ids(text, special=job["special"]) for text in job["texts"]],
        "greedy": model.greedy(job["prompt"], job["n_tokens"]),
        "most_probable": [model.most_probable(prefix) for prefix in job["prefixes"]],
    }
    sys.stdout.write("\n" + json.dumps(answers) + "\n")
    sys.stdout.flush()
    os._exit(0)  # llama.cpp's server threads are not waited for


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
