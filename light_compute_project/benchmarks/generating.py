"""`benchmark.py generate`: one model of random weights, one prompt, everybody decodes it greedily."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import generate_contestants
from benchmarks.child import child_command, child_result
from benchmarks.generate_contestants import GenerateWork
from benchmarks.processes import run_measured, thread_variables
from benchmarks.provenance import measure_ceiling, provenance
from benchmarks.race import run_race
from benchmarks.record import race_record
from benchmarks.workload import available_threads
from litgpt_core.core.errors import ConfigError

logger = logging.getLogger(__name__)

SHAPES: dict[str, tuple[tuple[str, ...], int]] = {
    "10m": (("model=reference",), 66),
    "124m": (("model=gpt2_124m", "model.position_embedding=rope", "model.rotary_percentage=1.0"), 50257),
}
"""Name -> (model of configs/, with rope because LitGPT has no learned positions; ids of the tokenizer)."""


@dataclass(frozen=True, kw_only=True)
class GenerateRace:
    """What the command line says."""

    against: tuple[str, ...]
    shape: str
    dtypes: tuple[str, ...] = ("bf16",)
    """Variants of ours, by generate.py's --precision."""
    batches: tuple[int, ...] = (1,)
    """Texts side by side, of ours in its first number type; 1 always takes part."""
    prompt_tokens: int = 16
    new_tokens: int = 200
    repeats: int = 3
    """Whole generations of a lap, after one that warms up."""
    nanogpt_dir: Path | None = None
    rounds: int = 3
    threads: int | None = None
    device: str = "cpu"
    lap_timeout_s: float = 1800.0

    def __post_init__(self) -> None:
        for name, least in (("rounds", 1), ("repeats", 1), ("new_tokens", 2), ("prompt_tokens", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"--{name} {getattr(self, name)}", needed=f"{least} or more")
        if min(self.batches, default=0) < 1 or len(set(self.batches)) != len(self.batches):
            raise ConfigError(f"--batch {self.batches}", needed="different whole numbers from 1")


def run_generation_race(race: GenerateRace, *, folder: Path, command: str) -> dict[str, Any]:
    """Run the whole race in `folder`, an empty folder that the caller removes.

    Returns:
        The JSON of `record.race_record`.

    Raises:
        LightComputeError: Anything the user can mend.
    """
    threads = race.threads or available_threads()
    work = make_work(race, folder=folder, threads=threads)
    contestants = [
        generate_contestants.ours(work, label="ours" if index == 0 else f"ours-{dtype}", dtype=dtype)
        for index, dtype in enumerate(race.dtypes)
    ]
    contestants += [
        generate_contestants.ours(work, label=f"ours-x{batch}", dtype=race.dtypes[0], batch=batch)
        for batch in race.batches
        if batch > 1
    ]
    contestants += generate_contestants.choose(work, race.against, nanogpt_dir=race.nanogpt_dir)
    ceiling = measure_ceiling(folder, device=race.device, threads=threads)
    origin = provenance(command, peers=race.against, nanogpt_dir=race.nanogpt_dir)
    laps = run_race(
        contestants,
        rounds=race.rounds,
        folder=folder,
        environment=thread_variables(threads),
        timeout_s=race.lap_timeout_s,
    )
    return race_record(
        "generate", contestants=contestants, laps=laps, work=work.facts(), ceiling=ceiling, provenance=origin
    )


def make_work(race: GenerateRace, *, folder: Path, threads: int) -> GenerateWork:
    """Make the model in a process of its own, and tell what everybody has to do."""
    overrides, vocab_size = SHAPES[race.shape]
    place = folder / "random-model"
    place.mkdir(parents=True)
    job: dict[str, Any] = {
        "folder": str(place),
        "overrides": list(overrides),
        "vocab_size": vocab_size,
        "prompt_tokens": race.prompt_tokens,
        "new_tokens": race.new_tokens,
    }
    run_measured(
        child_command("child_model", job, folder=place),
        folder=place,
        environment=thread_variables(threads),
        timeout_s=600,
        name="making the model",
    )
    made = child_result(place, name="making the model")
    if race.prompt_tokens + race.new_tokens > made["model"]["block_size"]:
        raise ConfigError(
            f"--prompt_tokens {race.prompt_tokens} and --new_tokens {race.new_tokens}",
            needed=f"at most {made['model']['block_size']} together, the model's context",
        )
    return GenerateWork(
        name=race.shape,
        checkpoint=place / "model",
        made=made,
        new_tokens=race.new_tokens,
        repeats=race.repeats,
        threads=threads,
        device=race.device,
    )


def dtypes_of(text: str) -> tuple[str, ...]:
    """`bf16,32` -> variants of ours.

    Raises:
        ConfigError: One of them is none of generate.py's.
    """
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names or not set(names) <= {"auto", "32", "bf16", "16"}:
        raise ConfigError(f"--precision {text!r}", needed="auto, 32, bf16, 16, with commas between them")
    return names
