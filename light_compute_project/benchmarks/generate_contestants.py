"""Everybody in the generation race: the command of each, and how its times are read.

The rate of all is new tokens by the seconds of the whole generation, the prompt's pass included, as LitGPT prints it.
Every decoding is greedy; the end-of-document token stops nobody, except in LitGPT's command, where it is checked that
it did not.
"""

from __future__ import annotations

import re
import shutil
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.child import child_command, child_result
from benchmarks.peers import NANOGPT_FILES
from benchmarks.race import Contestant, Reading
from litgpt_core.core.errors import EnvironmentProblem

_INFERENCE = re.compile(r"Time for inference \d+: ([\d.]+) sec total, ([\d.]+) tokens/sec")


@dataclass(frozen=True, kw_only=True)
class GenerateWork:
    """What everybody has to generate."""

    name: str
    checkpoint: Path
    """A directory that ours and LitGPT's commands read."""
    made: dict[str, Any]
    """What `child_model` said: prompt, ids, shape, sizes."""
    new_tokens: int
    repeats: int
    threads: int
    device: str

    def job(self) -> dict[str, Any]:
        """What every child module is told."""
        return {
            "checkpoint": str(self.checkpoint),
            "model": self.made["model"],
            "prompt_ids": self.made["prompt_ids"],
            "vocab_size": self.made["vocab_size"],
            "new_tokens": self.new_tokens,
            "repeats": self.repeats,
            "threads": self.threads,
            "device": self.device,
        }

    def facts(self) -> dict[str, Any]:
        """Plain values for the JSON."""
        model = dict(self.made["model"])
        vocabulary = model.pop("padded_vocab_size")
        return {
            "name": self.name,
            **model,
            "vocabulary": vocabulary,
            "n_params": self.made["n_params"],
            "flops_per_token": self.made["flops_per_token"],
            "weights_read_per_token": self.made["weights_read_per_token"],
            "prompt_tokens": len(self.made["prompt_ids"]),
            "new_tokens": self.new_tokens,
            "repeats": self.repeats,
            "threads": self.threads,
            "device": self.device,
            "rate": "new tokens of all texts / seconds of the whole generation, prompt included; greedy",
        }


def ours(work: GenerateWork, *, label: str, dtype: str, batch: int = 1) -> Contestant:
    """Our engine; `dtype` as generate.py's --precision, `batch` texts side by side.

    What it compiles and keeps between starts goes into the race's folder, so that the first round's start is cold.
    """
    return _child(
        work,
        label=label,
        module="child_ours",
        precision=_kind(dtype),
        own={"dtype": dtype, "batch": batch},
        ours=True,
        describes=f"generation.Engine, --precision {dtype}, batch {batch}",
        environment={"XDG_CACHE_HOME": str(work.checkpoint.parent / "cache")},
    )


def nanogpt(work: GenerateWork, *, source: Path) -> Contestant:
    """nanoGPT's model.generate from the user's folder."""

    def copy(folder: Path) -> None:
        for name in NANOGPT_FILES:
            shutil.copyfile(source / name, folder / name)

    return _child(
        work,
        label="nanogpt",
        module="peer_nanogpt_generate",
        precision="fp32",
        prepare=copy,
        describes="nanoGPT's model.generate, fp32, no KV cache, learned positions",
    )


def hf(work: GenerateWork, *, label: str, bf16: bool) -> Contestant:
    """transformers' generate."""
    precision = "bf16" if bf16 else "fp32"
    return _child(
        work,
        label=label,
        module="peer_hf_generate",
        precision=precision,
        own={"bf16": bf16},
        describes=f"GPT2LMHeadModel.generate, {precision}, KV cache, learned positions",
    )


def llamacpp(work: GenerateWork, *, label: str, kind: str) -> Contestant:
    """llama.cpp on a GGUF of this kind, f16 or q8_0."""
    return _child(
        work,
        label=label,
        module="peer_llamacpp",
        precision=kind,
        own={"kind": kind.upper()},
        describes=f"llama.cpp through xllamacpp's wheel, gpt2 architecture, {kind}",
    )


def litgpt(work: GenerateWork, *, label: str, precision: str, compiled: bool) -> Contestant:
    """LitGPT's own `litgpt generate` on the same checkpoint as ours."""

    def command(folder: Path) -> list[str]:
        return [
            sys.executable, "-m", "litgpt", "generate", str(work.checkpoint),
            "--prompt", work.made["prompt"],
            "--num_samples", str(work.repeats + 1),
            "--max_new_tokens", str(work.new_tokens),
            "--temperature", "0.0",
            "--precision", precision,
            "--compile", str(compiled).lower(),
        ]  # fmt: skip

    def read(folder: Path, output: str) -> Reading:
        return read_litgpt(output, new_tokens=work.new_tokens, precision=precision, name=label)

    how = ", --compile true" if compiled else ""
    return Contestant(
        label=label, ours=False, describes=f"litgpt generate, {precision}{how}", command=command, read=read
    )


def read_litgpt(output: str, *, new_tokens: int, precision: str, name: str) -> Reading:
    """The lines `Time for inference 2: 0.41 sec total, 487.80 tokens/sec`; the first one warms up.

    Raises:
        EnvironmentProblem: There are fewer than two, or a text ended early.
    """
    found = [(float(seconds), float(rate)) for seconds, rate in _INFERENCE.findall(output)]
    if len(found) < 2:
        raise EnvironmentProblem(f"{name} printed {len(found)} times", needed="at least 2", fix="--repeats 2")
    for seconds, rate in found:
        if abs(seconds * rate - new_tokens) > 0.01 * rate + 1:  # seconds are printed with two digits
            raise EnvironmentProblem(
                f"{name} made about {seconds * rate:.0f} tokens", needed=f"{new_tokens}: no end-of-document token"
            )
    rates = [rate for _, rate in found[1:]]
    return Reading(
        tokens_per_s=statistics.median(rates),
        precision="fp32" if precision == "32-true" else "bf16",
        numbers={"warm_up_s": found[0][0]},
        raw=[new_tokens / rate for rate in rates],
    )


def read_child(result: dict[str, Any], *, precision: str, name: str) -> Reading:
    """What `child.time_generations` returned, of any child.

    Raises:
        EnvironmentProblem: Numbers are missing, or texts ended early.
    """
    try:
        total, made = result["total_s"], result["new_tokens"]
        numbers = {key: float(result[key]) for key in NUMBERS if key in result}
        numbers["first_token_s"] = statistics.median(result["first_s"])
        rate = statistics.median(n / s for n, s in zip(made, total, strict=True))
    except (KeyError, ValueError, ZeroDivisionError, statistics.StatisticsError) as error:
        raise EnvironmentProblem(f"{name} left an incomplete result: {error!r}") from None
    if len(set(made)) != 1:
        raise EnvironmentProblem(f"{name} made {made} tokens", needed="equally many each time")
    batch = int(result.get("batch", 1))
    numbers["batch"] = float(batch)
    decoding = [s - f for s, f in zip(total, result["first_s"], strict=True)]
    numbers["decode_tokens_per_s"] = (made[0] - batch) / statistics.median(decoding)
    return Reading(tokens_per_s=rate, precision=precision, numbers=numbers, raw=total)


NUMBERS = ("start_to_first_s", "load_to_first_s", "warm_up_s")


def _child(
    work: GenerateWork,
    *,
    label: str,
    module: str,
    precision: str,
    describes: str,
    own: dict[str, Any] | None = None,
    ours: bool = False,
    environment: dict[str, str] | None = None,
    prepare: Callable[[Path], None] | None = None,
) -> Contestant:
    def command(folder: Path) -> list[str]:
        if prepare is not None:
            prepare(folder)
        return child_command(module, {**work.job(), **(own or {})}, folder=folder)

    def read(folder: Path, output: str) -> Reading:
        return read_child(child_result(folder, name=label), precision=precision, name=label)

    return Contestant(
        label=label, ours=ours, describes=describes, command=command, read=read, environment=environment or {}
    )


def _kind(dtype: str) -> str:
    return {"32": "fp32", "16": "fp16"}.get(dtype, dtype)


def choose(work: GenerateWork, names: Sequence[str], *, nanogpt_dir: Path | None) -> list[Contestant]:
    """The contestants of these names, which `peers.choose_peers` has checked."""
    makers: dict[str, Callable[[str], Contestant]] = {
        "nanogpt": lambda label: nanogpt(work, source=nanogpt_dir or Path()),
        "litgpt": lambda label: litgpt(work, label=label, precision="32-true", compiled=False),
        "litgpt-bf16": lambda label: litgpt(work, label=label, precision="bf16-true", compiled=False),
        "litgpt-bf16-compiled": lambda label: litgpt(work, label=label, precision="bf16-true", compiled=True),
        "hf": lambda label: hf(work, label=label, bf16=False),
        "hf-bf16": lambda label: hf(work, label=label, bf16=True),
        "llamacpp-f16": lambda label: llamacpp(work, label=label, kind="f16"),
        "llamacpp-q8_0": lambda label: llamacpp(work, label=label, kind="q8_0"),
    }
    return [makers[name](name) for name in names]
