"""Reading what trainings left in their run folders: in a notebook by these functions, in a terminal by `command.py`.

    from litgpt_core import runs

    for run in runs.find("runs"):
        print(run.name, run.state, run.get("val_loss"), run.get("optim.lr"))
    best = runs.best(runs.find("runs"), by="val_loss")
    steps, losses = zip(*best.curve("val_loss"))
    runs.plot(runs.find("runs"), metric="val_loss", x="tokens", path="runs.png")
    runs.frame(runs.find("runs"))  # a pandas.DataFrame, where pandas is installed

Nothing is written but the plot that is requested, and nothing removed but by `remove`. Names are imported at their
first use; neither torch nor, before a plot, matplotlib is loaded.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from litgpt_core.runs.folders import RunRecord as RunRecord
    from litgpt_core.runs.folders import best as best
    from litgpt_core.runs.folders import find as find
    from litgpt_core.runs.folders import resolve as resolve
    from litgpt_core.runs.plots import plot as plot
    from litgpt_core.runs.removal import removable as removable
    from litgpt_core.runs.removal import remove as remove
    from litgpt_core.runs.tables import changed_settings as changed_settings
    from litgpt_core.runs.tables import frame as frame
    from litgpt_core.runs.tables import rows as rows
    from litgpt_core.runs.tables import table as table

_MODULES = {
    **dict.fromkeys(("RunRecord", "best", "find", "resolve"), "folders"),
    **dict.fromkeys(("changed_settings", "frame", "rows", "table"), "tables"),
    **dict.fromkeys(("removable", "remove"), "removal"),
    "plot": "plots",
}


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
