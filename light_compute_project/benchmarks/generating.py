"""`benchmark.py generate`: all programs decode greedily from a model with random weights and one prompt.

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

SHAPES: dict[str, tuple[tuple[str, ...], int]] = {
    "10m": (("model=reference",), 66),
    "124m": (("model=gpt2_124m", "model.position_embedding=rope", "model.rotary_percentage=1.0"), 50257),
}
"""Name -> (model of configs/, with rope because LitGPT has no learned positions; ids of the tokenizer)."""

CONTEXT = {"10m": 256, "124m": 1024}
"""Of these models as shipped."""


@dataclass(frozen=True, kw_only=True)
class GenerateWork:
    """What every program generates."""

    name: str
    checkpoint: Path
    """A directory that ours and LitGPT's commands read."""
    made: dict[str, Any]
    """What `children.random_model` returned: prompt, ids, shape, costs."""
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
    """Make the model in a process of its own; its context grows with prompt and answer where needed."""
    overrides, vocab_size = SHAPES[options.shape]
    if (length := options.prompt_tokens + options.new_tokens) > CONTEXT[options.shape]:
        overrides = (*overrides, f"model.block_size={length}")
    place, threads = folder / "random-model", options.threads or available_threads()
    job = {
        "folder": str(place),
        "overrides": overrides,
        "vocab_size": vocab_size,
        "prompt_tokens": options.prompt_tokens,
        "new_tokens": options.new_tokens,
    }
    made = run_child("random_model:make_model", job, folder=place, threads=threads, name="making the model")
    return GenerateWork(
        name=options.shape,
        checkpoint=place / "model",
        made=made,
        new_tokens=options.new_tokens,
        repeats=options.repeats,
        threads=threads,
        device=options.device,
        nanogpt_dir=options.nanogpt_dir,
    )
