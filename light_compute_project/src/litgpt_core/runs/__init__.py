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

from typing import TYPE_CHECKING

from litgpt_core.core.lazy import lazy_names

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

__all__, __getattr__, __dir__ = lazy_names(
    __name__,
    {
        "folders": "RunRecord best find resolve",
        "plots": "plot",
        "removal": "removable remove",
        "tables": "changed_settings frame rows table",
    },
)
