"""`benchmark.py generate`: all programs decode greedily from one model and one prompt.

The rate is new tokens over the seconds of the whole generation, the prompt's prefill included, as LitGPT prints it. The
end-of-document token stops no program, except LitGPT's command, whose number of tokens is checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.child import run_child
from benchmarks.comparison import run_comparison
from benchmarks.options import BenchmarkOptions
from benchmarks.peers import GENERATE_PEERS
from benchmarks.processes import available_threads
from benchmarks.programs import ours
from litgpt_core.checkpoint import locate
from litgpt_core.core.errors import ConfigError

_LLAMA = "n_layer=30 n_head=9 n_query_groups=3 n_embd=576 intermediate_size=1536 block_size=2048 rope_base=100000"
SHAPES: dict[str, tuple[tuple[str, ...], int]] = {
    "10m": (("model=reference",), 66),
    "124m": (("model=gpt2_124m", "model.position_embedding=rope", "model.rotary_percentage=1.0"), 50257),
    "135m": (("model=llama_gqa", "model.tie_embeddings=true", *(f"model.{each}" for each in _LLAMA.split())), 49152),
}
"""Name -> (model of configs/, ids of the tokenizer). The first two have rope, because LitGPT has no learned positions;
135m is the shape of SmolLM2-135M."""
GPT2_ONLY = ("nanogpt", "hf")
"""Peers that build a GPT-2 of the same sizes."""
CONTEXT = {"10m": 256, "124m": 1024, "135m": 2048}
"""Of these models as shipped."""


@dataclass(frozen=True, kw_only=True)
class GenerateWork:
    """What every program generates."""

    name: str
    checkpoint: Path
    """A directory that ours and LitGPT's commands read."""
    cache: Path
    """Of ours, empty at first: compiled kernels."""
    made: dict[str, Any]
    """What `children.random_model` returned: prompt, ids, shape, costs."""
    random: bool = True
    """Whether the weights are: then a program may build its own model of the same shape."""
    new_tokens: int
    repeats: int
    """Whole generations of a trial, after one that warms up."""
    threads: int
    device: str
    nanogpt_dir: Path | None = None
    """The user's copy of nanoGPT."""

    def facts(self) -> dict[str, Any]:
        """Plain values for the JSON."""
        model = dict(self.made["model"])
        vocabulary = model.pop("padded_vocab_size")
        return {
            "name": self.name,
            **model,
            "vocabulary": vocabulary,
            **{name: self.made[name] for name in ("n_params", "flops_per_token", "weights_read_per_token")},
            "prompt_tokens": len(self.made["prompt_ids"]),
            "new_tokens": self.new_tokens,
            "repeats": self.repeats,
            "threads": self.threads,
            "device": self.device,
            "rate": "new tokens of all sequences / seconds of the whole generation, prompt included; greedy",
        }

    def job(self) -> dict[str, Any]:
        """What a program of `children/` gets."""
        return {
            "checkpoint": str(self.checkpoint),
            **{name: self.made[name] for name in ("model", "prompt_ids", "vocab_size")},
            "new_tokens": self.new_tokens,
            "repeats": self.repeats,
            "threads": self.threads,
            "device": self.device,
        }


def run_generation(options: BenchmarkOptions, *, folder: Path) -> dict[str, Any]:
    """Run every trial in `folder`, an empty folder that the caller removes; the JSON of `record.comparison_record`.

    Raises:
        LightComputeError: A mistake of the user's, before the first trial where possible.
    """
    work = generate_work(options, folder=folder)
    first = options.precision[0]
    specs = [ours.generate(work, label="ours", dtype=first)]
    specs += [ours.generate(work, label=f"ours-{dtype}", dtype=dtype) for dtype in options.precision[1:]]
    specs += [ours.generate(work, label=f"ours-x{n}", dtype=first, batch=n) for n in options.batch if n > 1]
    specs += [GENERATE_PEERS[name](work, label=name) for name in options.against]
    return run_comparison("generate", specs, options=options, work=work.facts(), folder=folder)[0]


def generate_work(options: BenchmarkOptions, *, folder: Path) -> GenerateWork:
    """Make the model, or read the one that --model names, in a process of its own.

    The context of a random model grows with prompt and answer where needed.

    Raises:
        ConfigError: A peer does not know the shape, or the model has too short a context.
        CheckpointError: --model names none.
    """
    threads = options.threads or available_threads()
    job: dict[str, Any] = {"prompt_tokens": options.prompt_tokens, "new_tokens": options.new_tokens}
    length = options.prompt_tokens + options.new_tokens
    if options.model is not None:
        checkpoint = locate(options.model)
        _check_peers(options, "--model", reason="they are of another architecture or build random models")
        place = folder / "model"
        made = run_child(
            "random_model:read_model",
            {**job, "checkpoint": str(checkpoint)},
            folder=place,
            threads=threads,
            name=f"reading {checkpoint}",
        )
        if length > (context := made["model"]["block_size"]):
            raise ConfigError(f"prompt and answer have {length} tokens", needed=f"at most {context}, the context")
    else:
        overrides, vocab_size = SHAPES[options.shape]
        if options.shape == "135m":
            _check_peers(options, "--shape 135m", reason="the shape is Llama's")
        if length > CONTEXT[options.shape]:
            overrides = (*overrides, f"model.block_size={length}")
        place = folder / "random-model"
        job = {**job, "folder": str(place), "overrides": overrides, "vocab_size": vocab_size}
        made = run_child("random_model:make_model", job, folder=place, threads=threads, name="making the model")
        checkpoint = place / "model"
    return GenerateWork(
        name=options.shape if options.model is None else Path(options.model).name,
        checkpoint=checkpoint,
        cache=place / "cache",
        made=made,
        random=options.model is None,
        new_tokens=options.new_tokens,
        repeats=options.repeats,
        threads=threads,
        device=options.device,
        nanogpt_dir=options.nanogpt_dir,
    )


def _check_peers(options: BenchmarkOptions, given: str, *, reason: str) -> None:
    if wrong := [name for name in options.against if name.startswith(GPT2_ONLY)]:
        raise ConfigError(f"{given} --against {wrong[0]}", needed=f"llamacpp or litgpt: {reason}")
