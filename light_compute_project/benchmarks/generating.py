"""`benchmark.py generate`: all programs decode greedily from a model with random weights and one prompt.

The rate is new tokens over the seconds of the whole generation, the prompt's prefill included, as LitGPT prints it. The
end-of-document token stops no program, except LitGPT's command, whose number of tokens is checked.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.child import child_spec, run_child
from benchmarks.options import BenchmarkOptions
from benchmarks.peers import GENERATE_PEERS
from benchmarks.processes import available_threads, child_environment
from benchmarks.programs import ours
from benchmarks.provenance import measure_ceiling, provenance
from benchmarks.record import comparison_record
from benchmarks.runner import Measurement, RunSpec, run_rounds
from litgpt_core.core.errors import ConfigError, EnvironmentProblem

SHAPES: dict[str, tuple[tuple[str, ...], int]] = {
    "10m": (("model=reference",), 66),
    "124m": (("model=gpt2_124m", "model.position_embedding=rope", "model.rotary_percentage=1.0"), 50257),
}
"""Name -> (model of configs/, with rope because LitGPT has no learned positions; ids of the tokenizer)."""


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

    def child_spec(
        self,
        function: str,
        *,
        label: str,
        precision: str,
        describes: str,
        settings: Mapping[str, Any] | None = None,
        ours: bool = False,
        environment: Mapping[str, str] | None = None,
        files: Sequence[Path] = (),
    ) -> RunSpec:
        """A program that is called through Python: `child.child_spec` with this work as its job, plus `settings`."""
        job = {
            "checkpoint": str(self.checkpoint),
            **{name: self.made[name] for name in ("model", "prompt_ids", "vocab_size")},
            "new_tokens": self.new_tokens,
            "repeats": self.repeats,
            "threads": self.threads,
            "device": self.device,
            **(settings or {}),
        }
        return child_spec(
            function,
            job,
            label=label,
            ours=ours,
            describes=describes,
            read=lambda result: read_generations(result, precision=precision, name=label),
            environment=environment,
            files=files,
        )


def read_generations(result: dict[str, Any], *, precision: str, name: str) -> Measurement:
    """The result of `children.timing.time_generations`.

    Raises:
        EnvironmentProblem: Numbers are missing, or generations stopped early.
    """
    try:
        total, generated = result["total_s"], result["new_tokens"]
        known = ("start_to_first_s", "load_to_first_s", "warm_up_s")
        numbers = {key: float(result[key]) for key in known if key in result}
        numbers["first_token_s"] = statistics.median(result["first_s"])
        rate = statistics.median(n / s for n, s in zip(generated, total, strict=True))
    except (KeyError, ValueError, ZeroDivisionError, statistics.StatisticsError) as error:
        raise EnvironmentProblem(f"{name} left an incomplete result: {error!r}") from None
    if len(set(generated)) != 1:
        raise EnvironmentProblem(f"{name} generated {generated} tokens", needed="the same number each time")
    batch = int(result.get("batch", 1))
    numbers["batch"] = float(batch)
    decoding = [s - f for s, f in zip(total, result["first_s"], strict=True)]
    numbers["decode_tokens_per_s"] = (generated[0] - batch) / statistics.median(decoding)
    return Measurement(tokens_per_s=rate, precision=precision, numbers=numbers, raw=total)


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
    ceiling = measure_ceiling(folder, device=work.device, threads=work.threads)
    origin = provenance(options.command, peers=options.against, nanogpt_dir=options.nanogpt_dir)
    trials = run_rounds(
        specs,
        rounds=options.rounds,
        folder=folder,
        environment=child_environment(work.threads),
        timeout_s=options.trial_timeout,
    )
    return comparison_record(
        "generate", specs=specs, trials=trials, work=work.facts(), ceiling=ceiling, provenance=origin
    )


def generate_work(options: BenchmarkOptions, *, folder: Path) -> GenerateWork:
    """Make the model in a process of its own.

    Raises:
        ConfigError: Prompt and new tokens exceed the model's context.
    """
    overrides, vocab_size = SHAPES[options.shape]
    place, threads = folder / "random-model", options.threads or available_threads()
    job = {
        "folder": str(place),
        "overrides": overrides,
        "vocab_size": vocab_size,
        "prompt_tokens": options.prompt_tokens,
        "new_tokens": options.new_tokens,
    }
    made = run_child("random_model:make_model", job, folder=place, threads=threads, name="making the model")
    context = made["model"]["block_size"]
    if options.prompt_tokens + options.new_tokens > context:
        raise ConfigError(
            f"--prompt_tokens {options.prompt_tokens} and --new_tokens {options.new_tokens}",
            needed=f"at most {context} together, the model's context",
        )
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
