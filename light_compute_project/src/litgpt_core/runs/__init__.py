"""Reading what trainings left in their run folders: in a notebook by these functions, in a terminal by `command.py`.

    from litgpt_core import runs

    for run in runs.find("runs"):
        print(run.name, run.state, run.get("val_loss"), run.get("optim.lr"))
    best = runs.best(runs.find("runs"), by="val_loss")
    steps, losses = zip(*best.curve("val_loss"))
    runs.plot(runs.find("runs"), metric="val_loss", x="tokens", path="runs.png")

Nothing is written but the plot that is requested. Importing this loads neither torch nor matplotlib.
"""

from litgpt_core.runs.folders import RunRecord, best, find, resolve
from litgpt_core.runs.plots import plot
from litgpt_core.runs.tables import changed_settings, rows, table

__all__ = ["RunRecord", "best", "changed_settings", "find", "plot", "resolve", "rows", "table"]
