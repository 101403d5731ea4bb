"""The analyses by name: what each is called, which function computes it, and what it needs.

A view is a function of a `Subject` that returns plain values (numbers, strings, lists, dicts); the same values become
findings, pictures, the page and `analysis.json`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from litgpt_core.core.errors import ConfigError
from litgpt_core.core.text import nearest

if TYPE_CHECKING:
    from litgpt_core.interpret.subject import Subject

Need = Literal["text", "against", "checkpoints", "neurons"]

WHAT_IS_MISSING: dict[Need, str] = {
    "text": "no held-out text: give --text FILE",
    "against": "no second text: give --prompt TEXT --against TEXT2",
    "checkpoints": "give --checkpoints, for a run with at least 2 checkpoints",
    "neurons": "the layers are mixtures of experts: no unit is used by every token",
}


@dataclass(frozen=True, kw_only=True)
class View:
    """One analysis."""

    name: str
    title: str
    module: str
    function: str = "view"
    needs: tuple[Need, ...] = ()

    @property
    def compute(self) -> Callable[[Subject], dict[str, Any]]:
        """The function, imported when it is requested."""
        function: Callable[[Subject], dict[str, Any]] = getattr(
            importlib.import_module(f"litgpt_core.interpret.{self.module}"), self.function
        )
        return function


VIEWS = (
    View(name="budget", title="Where the parameters and FLOPs are", module="budget"),
    View(name="surprisal", title="Surprisal of each token", module="losses", function="surprisal"),
    View(name="lens", title="Logit lens", module="lens"),
    View(name="attribution", title="Direct logit attribution", module="attribution"),
    View(name="attention", title="Attention per head", module="attention"),
    View(name="heads", title="What heads attend to", module="head_scores"),
    View(name="ablation", title="Ablation of heads and MLPs", module="ablation", needs=("text",)),
    View(name="patching", title="Patching between two texts", module="patching", needs=("against",)),
    View(name="positions", title="Loss by position", module="losses", function="by_position", needs=("text",)),
    View(name="frequency", title="Loss by token frequency", module="losses", function="by_frequency", needs=("text",)),
    View(name="neurons", title="Neurons", module="neurons", needs=("text", "neurons")),
    View(name="probes", title="Probes", module="probes", needs=("text",)),
    View(name="tuned_lens", title="Tuned lens", module="tuned_lens", needs=("text",)),
    View(name="autoencoder", title="Sparse autoencoder", module="autoencoder", needs=("text",)),
    View(name="embeddings", title="Token embeddings", module="embeddings"),
    View(name="weights", title="Spectra of the weights", module="weights"),
    View(name="dynamics", title="Over the checkpoints", module="dynamics", needs=("checkpoints",)),
)


def choose(names: Sequence[str]) -> list[View]:
    """The views of these names, in the order of the report; all without names.

    Raises:
        ConfigError: There is no such view.
    """
    known = {view.name: view for view in VIEWS}
    for name in names:
        if name not in known:
            raise ConfigError(
                f"there is no analysis {name!r}{nearest(name, known)}",
                needed=f"names of {', '.join(known)}, separated by commas",
                fix="--only lens,heads",
            )
    return [view for view in VIEWS if not names or view.name in names]


def missing(view: View, subject: Subject, *, checkpoints: bool) -> str:
    """Why a view cannot be computed for this subject, or an empty string."""
    config = subject.model.config
    have: dict[Need, bool] = {
        "text": subject.windows is not None and len(subject.windows) >= 2,
        "against": subject.prompt is not None and subject.against is not None,
        "checkpoints": checkpoints and len(subject.checkpoints) >= 2,
        "neurons": any(config.mlp_class_of(layer) != "LLaMAMoE" for layer in range(config.n_layer)),
    }
    return next((WHAT_IS_MISSING[need] for need in view.needs if not have[need]), "")
