"""What a sweep or a study has found, in plain values: the record file, tables and plots are made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from litgpt_core.search.trial_store import TrialFacts

if TYPE_CHECKING:
    from litgpt_core.search.study_space import SearchParameter

METRIC_NAMES = {"val_loss": "val loss (nats/token)", "val_bpb": "val bits per byte"}


@dataclass(frozen=True, kw_only=True)
class SearchResults:
    """What is reported of a sweep or a study."""

    kind: Literal["sweep", "study"]
    """Names the record file and the plot."""
    name: str
    folder: Path
    metric: str
    """What trials are compared by: `val_loss` or `val_bpb`; smaller is better."""
    trials: list[TrialFacts]
    """In their order."""
    axes: dict[str, list[str]] = field(default_factory=dict)
    """Of a sweep: swept key -> its values, as given."""
    parameters: dict[str, SearchParameter] = field(default_factory=dict)
    """Of a study."""
    shares: dict[str, float] = field(default_factory=dict)
    """SearchParameter -> its share in the spread of the completed trials."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What the record file says before its trials."""
    best_command: str | None = None
    """What trains the best trial again as a run of its own."""

    @property
    def varied(self) -> list[str]:
        """Keys with more than one value."""
        return [key for key, values in self.axes.items() if len(values) > 1] or list(self.parameters)

    @property
    def ranked(self) -> list[TrialFacts]:
        """The completed trials, best first, then the pruned, then the others."""
        order = {"done": 0, "pruned": 1}
        indexed = enumerate(self.trials)
        key = sorted((order.get(t.state, 2), 0.0 if t.value is None else t.value, n) for n, t in indexed)
        return [self.trials[n] for _, _, n in key]

    @property
    def best(self) -> TrialFacts | None:
        """The completed trial with the lowest value."""
        first = self.ranked[:1]
        return first[0] if first and first[0].state == "done" else None

    @property
    def record_file(self) -> Path:
        """`sweep.json` or `study.json`."""
        return self.folder / f"{self.kind}.json"

    @property
    def plot_file(self) -> Path:
        """`sweep.png` or `study.png`."""
        return self.folder / f"{self.kind}.png"


def short_names(keys: Sequence[str]) -> list[str]:
    """Dotted keys without their section, as far as that tells them apart."""
    ends = [key.split(".")[-1] for key in keys]
    return [end if ends.count(end) == 1 else key for key, end in zip(keys, ends, strict=True)]
