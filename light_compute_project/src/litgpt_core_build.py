"""Building the wheel: the YAML files of `configs/`, which are outside the package, are copied into it.

pyproject.toml names the class; setuptools calls it. An editable install copies nothing: there the files are read from
`configs/` itself.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools.command.build_py import build_py

CONFIGS = Path("light_compute_project") / "configs"
TARGET = Path("litgpt_core") / "configs"


class BuildWithConfigs(build_py):
    """setuptools' own step, and then the config files."""

    def run(self) -> None:
        """Copy modules, then configs."""
        super().run()
        if self.editable_mode:
            return
        for file in sorted(CONFIGS.rglob("*.yaml")):
            target = Path(str(self.build_lib)) / TARGET / file.relative_to(CONFIGS)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
