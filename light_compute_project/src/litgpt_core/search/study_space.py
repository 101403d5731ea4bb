"""What a study searches: values typed in the grammar of Hydra's sweepers, and the Optuna distributions they mean.

    optim.lr=tag(log,interval(1e-4,1e-2))     a number between, on a logarithmic scale
    model.dropout=interval(0,0.3)             a number between
    model.n_layer=int(interval(2,8))          a whole number between, both ends included
    trainer.global_batch_size=choice(16,32)   one of these; also without choice()
    model.n_head=range(2,9,2)                 2, 4, 6, 8

Floats are rounded to four digits, so that a command that repeats a trial can be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from litgpt_core.core.errors import ConfigError
from litgpt_core.search.sweep_grid import parse, texts

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from optuna.distributions import BaseDistribution

Value = float | int | str

DIGITS = 4
"""Significant digits of a float that is suggested."""
NOT_SEARCHED = ("run.name", "run.dir", "run.resume")


@dataclass(frozen=True, kw_only=True)
class SearchParameter:
    """One key that a study varies."""

    key: str
    kind: Literal["float", "int", "choice"]
    low: float | int | None = None
    high: float | int | None = None
    step: float | int | None = None
    log: bool = False
    choices: tuple[str, ...] = ()
    """As given on the command line."""

    @property
    def text(self) -> str:
        """What to type for it."""
        if self.kind == "choice":
            return f"choice({','.join(self.choices)})"
        if self.step is not None:
            return f"range({self.low},{self.high} included,{self.step})"
        inside = f"interval({self.low},{self.high})"
        inside = f"int({inside})" if self.kind == "int" else inside
        return f"tag(log,{inside})" if self.log else inside

    @property
    def distribution(self) -> BaseDistribution:
        """The same for Optuna."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.kind == "choice":
            return CategoricalDistribution(self.choices)
        assert self.low is not None and self.high is not None
        if self.kind == "int":
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    @property
    def values(self) -> list[Value] | None:
        """All of them, or None for an interval of floats."""
        if self.kind == "choice":
            return list(self.choices)
        assert self.low is not None and self.high is not None
        if self.kind == "int":
            return list(range(int(self.low), int(self.high) + 1, int(self.step or 1)))
        if self.step is None:
            return None
        return [self.rounded(self.low + n * self.step) for n in range(round((self.high - self.low) / self.step) + 1)]

    @property
    def ends(self) -> list[Value]:
        """The values at which a mistake shows: both ends, or each choice."""
        if self.kind == "choice":
            return list(self.choices)
        assert self.low is not None and self.high is not None
        return [self.low, self.high]

    def rounded(self, value: Value) -> Value:
        """A suggested value as it is used: floats with four digits, within the interval."""
        if self.kind != "float" or self.low is None or self.high is None:
            return value
        return min(max(float(f"{value:.{DIGITS}g}"), float(self.low)), float(self.high))

    def override(self, value: Value) -> str:
        """What to type for one value."""
        return f"{self.key}={value}"

    def allows(self, value: Any) -> bool:
        """Whether a value of an earlier command lies in this space."""
        if self.kind == "choice":
            return value in self.choices
        assert self.low is not None and self.high is not None
        return isinstance(value, (int, float)) and self.low <= value <= self.high


@dataclass(frozen=True, kw_only=True)
class Space:
    """What is searched, and what is the same in every trial."""

    parameters: dict[str, SearchParameter]
    fixed: list[str]
    """Overrides as typed, without `run.name` and `run.resume`."""
    name: str | None
    """`run.name` as typed."""

    def overrides(self, values: dict[str, Any]) -> list[str]:
        """A trial's settings, without its name."""
        return [*self.fixed, *(self.parameters[key].override(value) for key, value in values.items())]

    def first(self) -> dict[str, Value]:
        """One trial's worth of values: the first end of each."""
        return {key: parameter.ends[0] for key, parameter in self.parameters.items()}

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {key: asdict(parameter) for key, parameter in self.parameters.items()}


def read_space(overrides: Sequence[str]) -> Space:
    """Tell what is searched from what is fixed.

    Raises:
        ConfigError: Nothing is searched; or a range is empty, or of an unknown kind.
    """
    parameters: dict[str, SearchParameter] = {}
    fixed: list[str] = []
    name = None
    for text, key, override in parse(overrides):
        if override.is_sweep_override():
            if key in parameters or key in NOT_SEARCHED:
                raise ConfigError(f"{text}: {key} {'stands twice' if key in parameters else 'cannot be searched'}")
            parameters[key] = _parameter(key, override)
        elif key == "run.name":
            name = text.partition("=")[2].strip("'\"")
        elif key != "run.resume":
            fixed.append(text)
    if not parameters:
        raise ConfigError(
            "nothing is searched: every setting has one value",
            needed="at least one setting with several",
            fix="'optim.lr=tag(log,interval(1e-4,1e-2))', model.n_layer=choice(2,4), 'model.n_head=range(2,9,2)'",
        )
    return Space(parameters=parameters, fixed=fixed, name=name)


def _parameter(key: str, override: Override) -> SearchParameter:
    from hydra.core.override_parser.types import IntervalSweep, RangeSweep, Sweep

    given, value = str(override.input_line), override.value()
    tags = set(value.tags) if isinstance(value, Sweep) else set()
    allowed = {"log", "int", "float"} if isinstance(value, IntervalSweep) else set()
    if unknown := tags - allowed:
        raise ConfigError(
            f"{given}: tag {', '.join(sorted(unknown))} has no meaning here",
            needed="tag(log,interval(...)) or tag(int,interval(...))",
        )
    if isinstance(value, IntervalSweep):
        return _interval(key, value, given=given)
    found = texts(override)
    if isinstance(value, RangeSweep) and len(found) > 1:
        low, high = sorted((float(found[0]), float(found[-1])))
        step = abs(float(value.step))
        if all("." not in text and "e" not in text for text in found):
            return SearchParameter(key=key, kind="int", low=int(low), high=int(high), step=int(step))
        return SearchParameter(key=key, kind="float", low=low, high=float(f"{high:.12g}"), step=step)
    return SearchParameter(key=key, kind="choice", choices=tuple(dict.fromkeys(found)))


def _interval(key: str, value: Any, *, given: str) -> SearchParameter:
    low, high, log = value.start, value.end, "log" in value.tags
    whole = "int" in value.tags or (isinstance(low, int) and isinstance(high, int))
    if not low < high or (log and low <= 0):
        raise ConfigError(
            f"{given}: the interval is empty, or begins at 0 or below although it is logarithmic",
            needed="its lower end, then its upper end; both above 0 with tag(log,...)",
        )
    if whole and (low != int(low) or high != int(high)):
        raise ConfigError(f"{given}: whole numbers between {low} and {high}", needed="ends that are whole numbers")
    if whole:
        return SearchParameter(key=key, kind="int", low=int(low), high=int(high), log=log)
    return SearchParameter(key=key, kind="float", low=float(low), high=float(high), log=log)
