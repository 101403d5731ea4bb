"""Lightning comes without the packages that only its dependency's metrics want."""

from __future__ import annotations

import subprocess
import sys

CHECK = """
import sys
import litgpt_core.training.gather
assert "lightning" not in sys.modules, "mistakes are found before Lightning is paid for"
from litgpt_core.training.lean_import import UNWANTED, import_lightning_lean
import_lightning_lean()
assert "lightning" in sys.modules
loaded = sorted(UNWANTED & set(sys.modules))
assert not loaded, loaded
import lightning_utilities.core.imports as imports
assert imports.RequirementCache("matplotlib"), "the switch was not turned back"
from matplotlib.figure import Figure
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
import_lightning_lean()
"""


def test_the_unwanted_stay_out_and_can_be_imported_later() -> None:
    done = subprocess.run([sys.executable, "-c", CHECK], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
