"""Training the same steps more than once: twice the same, with several seeds, with several numbers of threads.

A variation is a list of overrides, as they are given to train.py; `train_variants` trains each in a process of its own.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from litgpt_core.audit.causes import likely_causes
from litgpt_core.audit.overrides import with_overrides
from litgpt_core.audit.recorded import RecordedRun
from litgpt_core.audit.replay import shortened, temporary_training
from litgpt_core.audit.report import (
    Report,
    Table,
    describe_first,
    number,
    share,
    trace_numbers,
    trace_table,
    trace_verdict,
)
from litgpt_core.audit.trace import PLANNED_SPREAD, compare_rows, last_validation, relative, spread
from litgpt_core.core.errors import ConfigError, LightComputeError

logger = logging.getLogger(__name__)

Plain = dict[str, Any]

USUAL_STEPS = 20
"""Steps that are trained twice, or with several numbers of threads, by default."""


def train_variants(
    plain: Plain, variants: Mapping[str, Sequence[str]], *, steps: int, every_step: bool = True
) -> dict[str, RecordedRun]:
    """Train a config once per variant, one process after the other, and read what each run recorded.

    Args:
        plain: A checked config.
        variants: Name of a run -> its overrides.
        steps: How many; the last one is validated.
        every_step: One row per step in place of the config's `trainer.log_interval`.

    Raises:
        ConfigError: There is only one variant.
        LightComputeError: A run failed.
    """
    if len(variants) < 2:
        raise ConfigError(
            "there is one value, and nothing to compare it with",
            needed="two different values or more",
            fix="--seeds 1,2,3 or --threads 1,2",
        )
    common = ["trainer.log_interval=1"] if every_step else []
    if steps % plain["trainer"].get("eval_interval", 100):
        common.append(f"trainer.eval_interval={steps}")
    runs = {}
    with temporary_training() as place:
        for name, overrides in variants.items():
            logger.info("%s: training %s steps", name, steps)
            variant = with_overrides(plain, [*common, *overrides])
            runs[name] = place.train(shortened(variant, steps=steps), name=name)
    return runs


def repeat(plain: Plain, *, name: str, steps: int | None = None, within: float = 0.0) -> Report:
    """Train the first steps of a config twice, in two processes, and compare every number of every step.

    Args:
        plain: A checked config.
        name: What the report calls it.
        steps: How many; None: `USUAL_STEPS`, or all if there are fewer.
        within: Greatest relative difference that passes; 0 demands equality to the last bit.
    """
    steps = _at_most(plain, USUAL_STEPS if steps is None else steps)
    runs = train_variants(plain, {"first": [], "second": []}, steps=steps)
    sides, (one, other) = ("first", "second"), runs.values()
    found = compare_rows(one.rows, other.rows, within=within)
    many = f"{found.values} numbers of {len(found.steps)} steps"
    return Report(
        kind="repeat",
        title=f"Audit of {name}: do two runs of {steps} steps agree?",
        passed=found.agrees,
        verdict=trace_verdict(found, many=many, sides=sides, within=within),
        method=[
            *_settings(plain, name=name, steps=steps),
            "Trained it twice, one process after the other, each in a temporary folder.",
            "Compared tokens, learning rate, training loss, gradient norm and validation loss of every step.",
        ],
        tables=[trace_table(found, title="First against second", sides=sides)],
        remarks=_free_choices(one),
        likely_causes=likely_causes(one.environment, other.environment),
        identical=found.identical,
        numbers={"name": name, "steps": steps, "within": within, **trace_numbers(found)},
        environments={side: run.environment for side, run in runs.items()},
    )


def over_seeds(
    plain: Plain, seeds: Sequence[int], *, name: str, steps: int | None = None, within: float = PLANNED_SPREAD
) -> Report:
    """Train a config with several seeds, and report by how much the last validation losses differ.

    Args:
        plain: A checked config.
        seeds: At least two.
        name: What the report calls it.
        steps: How many; None: the whole run.
        within: Greatest spread (largest minus smallest, as a share of the mean) that passes.
    """
    steps = _at_most(plain, _all_steps(plain) if steps is None else steps)
    variants = {f"seed-{seed}": [f"seed={seed}"] for seed in seeds}
    runs = train_variants(plain, variants, steps=steps, every_step=False)
    losses = {run_name: _last_loss(run) for run_name, run in runs.items()}
    values = [loss for _, loss in losses.values()]
    width, mean, stdev = spread(values), statistics.fmean(values), statistics.stdev(values)
    rows = [
        (run_name.removeprefix("seed-"), str(step), number(loss), f"{(loss - mean) / mean:+.2%}")
        for run_name, (step, loss) in losses.items()
    ]
    note = f"Mean {mean:.6f}, standard deviation {stdev:.6f}, largest minus smallest "
    note += f"{max(values) - min(values):.6f}: {width:.2%} of the mean."
    header = ("seed", "step", "nats per token", "from the mean")
    return Report(
        kind="seeds",
        title=f"Audit of {name}: by how much do seeds differ?",
        passed=width <= within,
        verdict=f"the validation losses of {len(values)} seeds lie within {width:.2%} of their mean; "
        f"required: {within:.2%}.",
        method=[
            *_settings(plain, name=name, steps=steps),
            f"Trained it with the seeds {', '.join(map(str, seeds))}: initial weights, order of samples, dropout. "
            "The split of the corpus and the tokenizer stay the same.",
            f"Compared the validation loss at step {steps}.",
        ],
        tables=[Table(title="Validation loss per seed", header=header, rows=rows, note=note)],
        remarks=[
            *(["Two seeds show a difference, not a distribution."] if len(values) == 2 else []),
            *(["Early in training seeds lie further apart than at its end."] if steps < _all_steps(plain) else []),
        ],
        likely_causes=None,
        identical=False,
        numbers={
            "name": name,
            "steps": steps,
            "within": within,
            "spread": width,
            "mean": mean,
            "stdev": stdev,
            "val_loss": {run_name: loss for run_name, (_, loss) in losses.items()},
        },
        environments={run_name: run.environment for run_name, run in runs.items()},
    )


def over_threads(
    plain: Plain, threads: Sequence[int], *, name: str, steps: int | None = None, within: float = PLANNED_SPREAD
) -> Report:
    """Train a config with several numbers of CPU threads, and report how the others' rows differ from the first one's.

    Sums are split among threads, and rounding depends on the split: equality is not expected, closeness is.

    Args:
        plain: A checked config.
        threads: At least two numbers.
        name: What the report calls it.
        steps: How many; None: `USUAL_STEPS`, or all if there are fewer.
        within: Greatest relative difference of the last validation loss that passes.
    """
    steps = _at_most(plain, USUAL_STEPS if steps is None else steps)
    runs = train_variants(plain, {f"threads-{n}": [f"trainer.threads={n}"] for n in threads}, steps=steps)
    first, *others = runs
    step, loss = _last_loss(runs[first])
    tables, numbers, clauses = [], {}, []
    for other in others:
        sides = (first, other)
        found = compare_rows(runs[first].rows, runs[other].rows)
        distance = relative(loss, _last_loss(runs[other])[1])
        tables.append(trace_table(found, title=f"{first} against {other}", sides=sides))
        numbers[other] = {**trace_numbers(found), "last_val_loss_relative": distance}
        differing = f"the first difference is at {describe_first(found, sides=sides)}; "
        differing += f"validation loss at step {step} {share(distance)} apart"
        clauses.append(f"{other}: " + (f"identical to {first}" if found.identical else differing))
    return Report(
        kind="threads",
        title=f"Audit of {name}: what does the number of threads change?",
        passed=all(entry["last_val_loss_relative"] <= within for entry in numbers.values()),
        verdict=f"{'; '.join(clauses)}. Required of the validation loss: {share(within)}.",
        method=[
            *_settings(plain, name=name, steps=steps),
            f"Trained it with {', '.join(map(str, threads))} threads (trainer.threads), one process after the other.",
            f"Compared every number of every step with those of {first}.",
        ],
        tables=tables,
        remarks=["Results are bit-identical only at one number of threads: a sum over parts rounds differently."],
        likely_causes=likely_causes(runs[first].environment, runs[others[0]].environment),
        identical=all(entry["identical"] for entry in numbers.values()),
        numbers={"name": name, "steps": steps, "within": within, "against": first, "runs": numbers},
        environments={run_name: run.environment for run_name, run in runs.items()},
    )


def _at_most(plain: Plain, steps: int) -> int:
    if steps < 1:
        raise ConfigError(f"--steps {steps}", needed="at least 1", fix=f"--steps {USUAL_STEPS}")
    return min(steps, _all_steps(plain))


def _all_steps(plain: Plain) -> int:
    return int(plain["trainer"]["max_steps"])


def _last_loss(run: RecordedRun) -> tuple[int, float]:
    found = last_validation(run.rows)
    if found is None:
        raise LightComputeError(f"{run.name} has no validation: its training ended at step {run.last_step}")
    return found


def _settings(plain: Plain, *, name: str, steps: int) -> list[str]:
    total = _all_steps(plain)
    part = "the whole run" if steps == total else f"the first {steps} of {total} steps, on the schedule of all {total}"
    return [f"Took the settings of {name}: {part}."]


def _free_choices(run: RecordedRun) -> list[str]:
    """Settings that are left to the machine, so that the same config may compute something else elsewhere."""
    trainer = run.plain["trainer"]
    free = [key for key in ("accelerator", "precision", "compile") if trainer.get(key, "auto") == "auto"]
    free += ["threads"] if trainer.get("threads") is None else []
    if not free:
        return []
    return [f"Left to the machine: {', '.join(f'trainer.{key}' for key in free)}. `trainer=deterministic` fixes them."]
