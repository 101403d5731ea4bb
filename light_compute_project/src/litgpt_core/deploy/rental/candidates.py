"""Offers x recipe -> what a run would take and cost at each, and which one is proposed. Pure; nobody is asked.

    training    tokens / tokens per second of the planner's best strategy on so many GPUs
    machine     training + set-up (starting the machine, copying, installing)
    dollars     machine hours * price * GPUs + disk

The rate is the planner's estimate from data sheets. The cap does not depend on it: the three stops look at the clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from litgpt_core.config.compose import TrainConfig
from litgpt_core.core.errors import ConfigError
from litgpt_core.deploy.rental.prices import Offer
from litgpt_core.planning.command import fixed_micro_batch, recipe_for
from litgpt_core.planning.gpus import find_gpu
from litgpt_core.planning.plan import Terms, best, options
from litgpt_core.planning.step_time import MFU

HOURS_OF_A_MONTH = 730.0
SETUP_MINUTES = 10.0
"""Assumed from the request to the first step, most of it installing torch; the record of a rental has the real ones."""


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What a plan assumes and what it must keep to."""

    budget: float = 20.0
    """Dollars of the whole rental at most."""
    max_hourly_cost: float = 5.0
    """Dollars of a machine and hour at most."""
    disk_gb: int = 50
    setup_minutes: float = SETUP_MINUTES
    mfu: float = MFU

    def __post_init__(self) -> None:
        problems = [
            f"--{name}={getattr(self, name):g}: needed a number above 0"
            for name in ("budget", "max_hourly_cost", "disk_gb", "mfu")
            if not 0 < getattr(self, name) < 1e9
        ]
        if not 0 <= self.setup_minutes < 600:
            problems.append(f"--setup_minutes={self.setup_minutes:g}: needed minutes from 0 to 600")
        if problems:
            raise ConfigError("\n".join(problems))


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One offer with one number of GPUs."""

    offer: Offer
    count: int
    train_hours: float
    """NaN where the run does not fit or the number does not divide its batch."""
    conditions: Conditions
    overrides: tuple[str, ...] = ()
    """Settings of the training that the plan is made with."""
    obstacle: str = ""
    """Why it is not taken; empty if it may be."""

    @property
    def hourly(self) -> float:
        """Dollars of the machine for an hour, disk included."""
        return self.offer.price * self.count + self.conditions.disk_gb * self.offer.storage / HOURS_OF_A_MONTH

    @property
    def hours(self) -> float:
        """That the machine runs."""
        return self.train_hours + self.conditions.setup_minutes / 60

    @property
    def dollars(self) -> float:
        """Of the whole run."""
        return self.hours * self.hourly


def candidates(
    config: TrainConfig,
    offers: Sequence[Offer],
    *,
    conditions: Conditions,
    counts: Mapping[str, int],
    tokens: float | None = None,
) -> list[Candidate]:
    """Every offer, cheapest run first; those that are not taken follow, with the reason.

    Args:
        config: Of the run.
        offers: As `prices.select` leaves them.
        conditions: Budget, ceiling and assumptions.
        counts: GPUs of one machine, by the planner's name of the GPU; others: as few as are offered.
        tokens: Of the whole run; None: steps x tokens of a step.
    """
    found = [
        _candidate(config, offer, conditions=conditions, count=_count(offer, counts), tokens=tokens) for offer in offers
    ]
    return sorted(found, key=lambda each: (bool(each.obstacle), not each.dollars >= 0, each.dollars, each.hourly))


def choose(found: Sequence[Candidate]) -> list[Candidate]:
    """Those that may be taken, cheapest first.

    Raises:
        ConfigError: None may; with the reasons.
    """
    usable = [each for each in found if not each.obstacle]
    if usable:
        return usable
    reasons = [f"{each.count} x {each.offer.gpu} at {each.offer.provider}: {each.obstacle}" for each in found]
    raise ConfigError(
        "no machine can be taken:\n    " + "\n    ".join(reasons),
        needed="one that holds the run, costs at most --max_hourly_cost an hour, and finishes within --budget",
        fix="a larger --budget or --max_hourly_cost, fewer trainer.max_steps, or other GPUs: --gpu H100,A100",
    )


def _count(offer: Offer, counts: Mapping[str, int]) -> int:
    return counts.get(find_gpu(offer.gpu).name, min(offer.counts))


def _candidate(
    config: TrainConfig, offer: Offer, *, conditions: Conditions, count: int, tokens: float | None
) -> Candidate:
    gpu = find_gpu(offer.gpu)
    terms = Terms(gpu=gpu, per_node=max(count, 1), mfu=conditions.mfu, cost_per_hour=offer.price)
    recipe = recipe_for(config, gpu)
    total = tokens if tokens is not None else config.trainer.stop.max_steps * recipe.tokens_per_step
    choices = options(recipe, counts=[count], terms=terms, micro_batch=fixed_micro_batch(config))
    option = best(choices)
    hours = float("nan") if option is None else option.seconds(total) / 3600
    made = Candidate(
        offer=offer,
        count=count,
        train_hours=hours,
        conditions=conditions,
        overrides=() if option is None else tuple(option.overrides),
    )
    obstacle = ""
    if count not in offer.counts:
        obstacle = f"machines have {', '.join(map(str, offer.counts))} of them"
    elif not choices:
        obstacle = f"{count} GPUs do not divide trainer.global_batch_size={recipe.global_batch}"
    elif option is None:
        obstacle = f"the run does not fit into {gpu.memory / 1e9:.0f} GB"
    elif made.hourly > conditions.max_hourly_cost:
        obstacle = f"${made.hourly:.2f} an hour is above --max_hourly_cost={conditions.max_hourly_cost:g}"
    elif made.dollars > conditions.budget:
        obstacle = f"${made.dollars:.2f} are above --budget={conditions.budget:g}"
    return Candidate(**{**vars(made), "obstacle": obstacle})
