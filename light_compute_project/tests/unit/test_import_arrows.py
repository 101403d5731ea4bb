"""Imports point one way, down the list of rooms in docs/architecture.md, and slow imports stay in their rooms."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src" / "litgpt_core"

LEVELS = (
    ("errors", "environment"),
    ("console", "config_source", "config_diff", "provenance"),
    ("model", "tokenizers", "loss", "upstream", "config_litgpt_keys"),
    ("prompts",),
    ("optim", "data", "checkpoint", "config_litgpt"),
    ("generation",),
    ("training",),
    ("analysis", "config_docs", "export", "serving", "deploy"),
)
RANK = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
SETTINGS_ONLY = {
    "model.config",
    "model.lora_settings",
    "tokenizers.settings",
    "data.settings",
    "optim.settings",
    "training.settings",
}
"""What `config` reads: each room's settings, nothing that builds."""

CONFINED = {
    "lightning": ("training", "data/module.py"),
    "hydra": ("config.py", "deploy/launcher_settings.py", "training/sweep_grid.py", "training/study"),
    "optuna": ("training/study",),
    "omegaconf": ("config.py",),
    "submitit": ("deploy/submitit_",),
    "wandb": ("training/loggers.py",),
    "matplotlib": ("training/results.py", "training/sweep_pictures.py", "training/study_pictures.py", "analysis"),
    "litgpt": ("analysis/benchmark/peer_litgpt",),
    "transformers": ("analysis/benchmark/peer_hf_",),
}


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Absolute module names that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            module = node.module or ""
            if module == "litgpt_core":
                yield from ((f"litgpt_core.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield module, node.lineno


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


FILES = sorted(SOURCE.rglob("*.py"))


def test_every_room_has_a_level() -> None:
    rooms = {room_of(path) for path in FILES} - {"__init__", "config"}
    assert rooms == set(RANK), "a new room needs a place in LEVELS and in docs/architecture.md"


def test_imports_point_down() -> None:
    wrong = []
    for path in FILES:
        room = room_of(path)
        for name, line in imports(path):
            if not name.startswith("litgpt_core."):
                continue
            target = name.split(".")[1]
            if room in ("config", "__init__") or target == room:
                continue
            fine = RANK[room] >= RANK["training"] if target == "config" else RANK[target] < RANK[room]
            if not fine:
                wrong.append(f"{path.relative_to(SOURCE)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_config_reads_settings_only() -> None:
    names = {name.removeprefix("litgpt_core.") for name, _ in imports(SOURCE / "config.py") if "litgpt_core." in name}
    assert names <= SETTINGS_ONLY | {"config_source", "config_litgpt", "errors"}


def test_slow_packages_stay_in_their_rooms() -> None:
    wrong = []
    for path in FILES:
        place = path.relative_to(SOURCE).as_posix()
        for name, line in imports(path):
            allowed = CONFINED.get(name.split(".")[0])
            if allowed is not None and not place.startswith(allowed):
                wrong.append(f"{place}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)
