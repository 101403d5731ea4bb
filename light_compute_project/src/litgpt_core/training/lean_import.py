"""Import Lightning without the packages that one of its dependencies loads for metrics nobody here computes.

Lightning imports torchmetrics, and that imports transformers (for BERTScore) and matplotlib (for its own plots)
wherever they are installed: 53 MB and about a second of every start on 2 AMD EPYC cores.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable

UNWANTED = frozenset({"transformers", "matplotlib", "scienceplots", "torchvision", "torchaudio"})
"""Packages that torchmetrics must take for not installed. Nothing of Lightning's own needs these."""


def import_lightning_lean() -> None:
    """Import `lightning`; later imports of the packages left out work as ever. Does nothing if it is imported already.

    Should the switch that this turns have gone from a later release, Lightning is imported as a whole.
    """
    if "lightning" in sys.modules:
        return
    try:
        requirements = importlib.import_module("lightning_utilities.core.imports").RequirementCache
        check: Callable[..., None] = requirements._check_available
    except (ImportError, AttributeError):
        importlib.import_module("lightning")
        return

    def answer(self: object) -> None:
        named = str(getattr(self, "requirement", None) or getattr(self, "module", None) or "")
        name = named.split(">")[0].split("=")[0].split("<")[0].split(".")[0].strip()
        if name in UNWANTED and not hasattr(self, "available"):
            vars(self).update(available=False, message=f"{name} is not asked for")
        check(self)

    requirements._check_available = answer
    try:
        importlib.import_module("lightning")
    finally:
        requirements._check_available = check
