"""Training the same steps more than once: twice the same, with several seeds, with several numbers of threads."""

from __future__ import annotations

import copy
import logging
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from litgpt_core.audit.recorded import RecordedRun
from litgpt_core.audit.replay import shortened, stage
from litgpt_core.audit.report import (
    Report,
    Table,
    describe_first,
    number,
    share,
    trace_numbers,
    trace_table,
)
from litgpt_core.audit.suspects import suspects
from litgpt_core.audit.trace import (
    PLANNED_SPREAD,
    compare_rows,
    last_validation,
    relative,
    spread,
)
from litgpt_core.core.errors import ConfigError, LightComputeError

logger = logging.getLogger(__name__)

Plain = dict[str, Any]

USUAL_STEPS = 20
"""Steps that are trained twice, or with several numbers of threads, unless somebody says."""


def repeat(plain: Plain, *, name: str, steps: int | None = None, within: float = 0.0) -> Report:
    """Train the first steps of a config twice, in two processes, and compare every number of every step.

    Args:
        plain: A checked config.
        name: What the report calls it.
        steps: How many; None: `USUAL_STEPS`, or all if there are fewer.
        within: Greatest relative difference that passes; 0 demands equality to the last bit.
    """
    steps = _at_most(plain, USUAL_STEPS if steps is None else steps)
    every = _every_step(plain, steps=steps)
    sides = ("first", "second")
    with stage() as place:
        one, other = (place.train(every, name=side) for side in sides)
    found = compare_rows(one.rows, other.rows, within=within)
    how = describe_first(found, sides=sides)
    many = f"{found.values} numbers of {len(found.steps)} steps"
    return Report(
        kind="repeat",
        title=f"Audit of {name}: do two runs of {steps} steps agree?",
        passed=found.agrees,
        verdict=f"identical: all {many} are equal to the last bit."
        if found.identical
        else f"equal within {share(within)}: largest difference {share(found.largest_relative)} in {many}."
        if found.agrees
        else f"the first difference is at {how}. {found.differing} of {many} differ.",
        method=[
            *_settings(plain, name=name, steps=steps),
            "Trained it twice, one process after the other, each in a temporary folder.",
            "Compared tokens, learning rate, training loss, gradient norm and validation loss of every step.",
        ],
        tables=[trace_table(found, title="First against second", sides=sides)],
        remarks=_free_choices(one),
        suspects=suspects(one.environment, other.environment),
        identical=found.identical,
        numbers={"name": name, "steps": steps, "within": within, **trace_numbers(found)},
        environments={side: run.environment for side, run in zip(sides, (one, other), strict=True)},
    )


def over_seeds(
    plain: Plain, seeds: Sequence[int], *, name: str, steps: int | None = None, within: float = PLANNED_SPREAD
) -> Report:
    """Train a config with several seeds, and tell by how much the last validation losses differ.

    Args:
        plain: A checked config.
        seeds: At least two.
        name: What the report calls it.
        steps: How many; None: the whole run.
        within: Greatest spread (largest minus smallest, as a share of the mean) that passes.
    """
    steps = _at_most(plain, _all_steps(plain) if steps is None else steps)
    runs = _trained(plain, {f"seed-{seed}": {"seed": seed} for seed in seeds}, steps=steps)
    losses = {run_name: _last_loss(run) for run_name, run in runs.items()}
    values = [loss for _, loss in losses.values()]
    width, middle = spread(values), statistics.fmean(values)
    rows = [
        (run_name.removeprefix("seed-"), str(step), number(loss), f"{(loss - middle) / middle:+.2%}")
        for run_name, (step, loss) in losses.items()
    ]
    note = f"Mean {middle:.6f}, standard deviation {statistics.stdev(values):.6f}, largest minus smallest "
    note += f"{max(values) - min(values):.6f}: {width:.2%} of the mean."
    return Report(
        kind="seeds",
        title=f"Audit of {name}: by how much do seeds differ?",
        passed=width <= within,
        verdict=f"the validation losses of {len(values)} seeds lie within {width:.2%} of their mean; "
        f"demanded: {within:.2%}.",
        method=[
            *_settings(plain, name=name, steps=steps),
            f"Trained it with the seeds {', '.join(map(str, seeds))}: initial weights, order of samples, dropout. "
            "The split of the corpus and the tokenizer stay the same.",
            f"Compared the validation loss at step {steps}.",
        ],
        tables=[
            Table(
                title="Validation loss per seed",
                header=("seed", "step", "nats per token", "from the mean"),
                rows=rows,
                note=note,
            )
        ],
        remarks=[
            *(["Two seeds show a difference, not a distribution."] if len(values) == 2 else []),
            *(["Early in training seeds lie further apart than at its end."] if steps < _all_steps(plain) else []),
        ],
        suspects=None,
        identical=False,
        numbers={
            "name": name,
            "steps": steps,
            "within": within,
            "spread": width,
            "mean": middle,
            "stdev": statistics.stdev(values),
            "val_loss": {run_name: loss for run_name, (_, loss) in losses.items()},
        },
        environments={run_name: run.environment for run_name, run in runs.items()},
    )


def over_threads(
    plain: Plain, threads: Sequence[int], *, name: str, steps: int | None = None, within: float = PLANNED_SPREAD
) -> Report:
    """Train a config with several numbers of CPU threads, and state how the traces differ from the first one's.

    Sums are split among threads, and rounding depends on the split: equality is not expected, closeness is.

    Args:
        plain: A checked config.
        threads: At least two numbers.
        name: What the report calls it.
        steps: How many; None: `USUAL_STEPS`, or all if there are fewer.
        within: Greatest relative difference of the last validation loss that passes.
    """
    steps = _at_most(plain, USUAL_STEPS if steps is None else steps)
    every = _every_step(plain, steps=steps)
    runs = _trained(every, {f"threads-{n}": {"trainer": {"threads": n}} for n in threads}, steps=steps)
    first, *others = runs
    step, loss = _last_loss(runs[first])
    tables, numbers, apart, clauses = [], {}, 0.0, []
    for other in others:
        sides = (first, other)
        found = compare_rows(runs[first].rows, runs[other].rows)
        distance = relative(loss, _last_loss(runs[other])[1])
        apart = max(apart, distance)
        tables.append(trace_table(found, title=f"{first} against {other}", sides=sides))
        numbers[other] = {**trace_numbers(found), "last_val_loss_relative": distance}
        clauses.append(
            f"{other}: identical to {first}"
            if found.identical
            else f"{other}: the first difference is at {describe_first(found, sides=sides)}; "
            f"validation loss at step {step} {share(distance)} apart"
        )
    return Report(
        kind="threads",
        title=f"Audit of {name}: what do threads change?",
        passed=apart <= within,
        verdict=f"{'; '.join(clauses)}. Demanded of the validation loss: {share(within)}.",
        method=[
            *_settings(plain, name=name, steps=steps),
            f"Trained it with {', '.join(map(str, threads))} threads (trainer.threads), one process after the other.",
            f"Compared every number of every step with those of {first}.",
        ],
        tables=tables,
        remarks=["Results are bit-identical only at one number of threads: a sum over parts rounds otherwise."],
        suspects=suspects(runs[first].environment, runs[others[0]].environment),
        identical=all(entry["identical"] for entry in numbers.values()),
        numbers={"name": name, "steps": steps, "within": within, "against": first, "runs": numbers},
        environments={run_name: run.environment for run_name, run in runs.items()},
    )


def _trained(plain: Plain, variants: Mapping[str, Mapping[str, Any]], *, steps: int) -> dict[str, RecordedRun]:
    """One run per variant, validated at its last step."""
    if len(variants) < 2:
        raise ConfigError(
            "there is one value, and nothing to compare it with",
            needed="two different values or more",
            fix="--seeds 1,2,3 or --threads 1,2",
        )
    runs = {}
    with stage() as place:
        for run_name, changes in variants.items():
            variant = _validated_at(plain, steps)
            for section, value in changes.items():
                variant[section] = {**variant[section], **value} if isinstance(value, Mapping) else value
            logger.info("%s: training %s steps", run_name, steps)
            runs[run_name] = place.train(shortened(variant, steps=steps), name=run_name)
    return runs


def _every_step(plain: Plain, *, steps: int) -> Plain:
    """With a row for every step, and a validation at the last."""
    changed = _validated_at(plain, steps)
    changed["trainer"]["log_interval"] = 1
    return shortened(changed, steps=steps)


def _validated_at(plain: Plain, steps: int) -> Plain:
    changed = copy.deepcopy(plain)
    trainer = changed["trainer"]
    if steps % trainer.get("eval_interval", 100):
        trainer["eval_interval"] = steps
    return changed


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
    """What the settings leave to the machine, so that the same settings may compute something else elsewhere."""
    trainer = run.plain["trainer"]
    free = [key for key in ("accelerator", "precision", "compile") if trainer.get(key, "auto") == "auto"]
    free += ["threads"] if trainer.get("threads") is None else []
    if not free:
        return []
    return [f"Left to the machine: {', '.join(f'trainer.{key}' for key in free)}. `trainer=deterministic` fixes them."]
