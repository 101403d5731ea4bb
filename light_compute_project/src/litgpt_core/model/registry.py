"""LitGPT's named configs, read from the installed wheel without importing the litgpt package.

`import litgpt` takes seconds because its `__init__` pulls in torch and lightning; its `config.py` needs neither, so
that one file is loaded by its path. Not here: what the entries mean (`config`).
"""

from __future__ import annotations

import difflib
import importlib.util
import sys
from copy import deepcopy
from functools import lru_cache
from typing import Any

from litgpt_core.core.errors import ConfigError, EnvironmentProblem

_MODULE = "litgpt_core_registry_of_litgpt"
"""Not "litgpt.config", which a later `import litgpt` makes properly."""


@lru_cache(maxsize=1)
def load_registry() -> tuple[dict[str, Any], ...]:
    """All entries as upstream wrote them (do not change them: `registry_entry` gives copies)."""
    package = importlib.util.find_spec("litgpt")
    if package is None or not package.submodule_search_locations:
        raise EnvironmentProblem(
            "The package litgpt is not installed.", needed="litgpt, for its named model configs", fix="uv sync"
        )
    path = f"{package.submodule_search_locations[0]}/config.py"
    spec = importlib.util.spec_from_file_location(_MODULE, path)
    if spec is None or spec.loader is None:
        raise EnvironmentProblem(
            f"{path} cannot be loaded.", needed="an intact litgpt package", fix="uv sync --reinstall-package litgpt"
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return tuple(module.configs)


def registry_entry(name: str) -> dict[str, Any]:
    """A fresh copy of the entry called `name` or "org/name", as on the hub. Raises ConfigError if there is none."""
    entries = load_registry()
    by_name = {str(entry["name"]): entry for entry in entries}
    by_hub: dict[str, dict[str, Any]] = {}
    for entry in entries:
        hub = entry.get("hf_config", {})
        by_hub.setdefault(f"{hub.get('org')}/{hub.get('name')}", entry)
        by_hub.setdefault(str(hub.get("name")), entry)
    found = by_name.get(name) or by_hub.get(name)
    if found is None:
        lower = {known.lower(): known for known in [*by_name, *by_hub]}
        near = [lower[match] for match in difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.5)]
        raise ConfigError(
            f"LitGPT has no model called {name!r}.",
            needed=f"one of its {len(by_name)} names" + (f", for example {', '.join(near)}" if near else ""),
            fix=f"model.name={near[0]}" if near else "litgpt download list",
        )
    return deepcopy(found)
