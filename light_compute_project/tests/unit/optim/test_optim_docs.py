"""docs/optim.md says what the code does: the table of groups, and the numbers behind the pictures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from docs.generate.optim_plots import DIGEST_KEY, IMAGES, PICTURES, digest, draw_all, schedule_curves
from PIL import Image

from litgpt_core.core.checkout import PROJECT_DIR
from litgpt_core.doctor.model_checks import KINDS, build
from litgpt_core.model import GPT
from litgpt_core.optim.build import build_optimizer
from litgpt_core.optim.settings import AdamWSettings, MuonSettings

PAGE = PROJECT_DIR / "docs" / "optim.md"
MARKS = {"weight", "bias"}
DRAW = "python -m docs.generate.optim_plots"

GROUPED = {"n_expert_groups": 2, "n_topk_groups": 1, "n_topk_scores_per_group": 2, "n_shared_expert": 1}
SAMPLES: dict[str, tuple[str, dict[str, Any]]] = {
    **{kind: (kind, {}) for kind in KINDS},
    "biases": ("MHA", {"bias": True, "attn_bias": True, "lm_head_bias": True}),
    "branch norms": ("GQA + QK-norm", {"post_attention_norm": True, "post_mlp_norm": True}),
    "grouped routing": ("mixture of experts", {**GROUPED, "moe_intermediate_size": 16}),
}
SETTINGS = [AdamWSettings(lr=0.01, weight_decay=0.3), MuonSettings(lr=0.01, matrix_lr=0.05, weight_decay=0.3)]


def table() -> dict[str, dict[str, Any]]:
    """Group -> the names in its row, whether it decays, and what each optimizer does with it."""
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (yes|no) \| (.+?) \| (.+?) \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    return {
        group: {"names": set(re.findall(r"`(\w+)`", what)), "decays": decays == "yes", "adamw": adamw, "muon": muon}
        for group, what, decays, adamw, muon in rows
    }


def sample(label: str) -> GPT:
    kind, overrides = SAMPLES[label]
    return build(kind, **overrides)


def row_of(name: str) -> str:
    """The one row of the table that names this parameter."""
    module, kind = name.split(".")[-2:]
    wanted = "bias" if kind == "bias" else module
    rows = [group for group, row in table().items() if wanted in row["names"]]
    assert len(rows) == 1, f"{name} is in {rows}"
    return rows[0]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: settings.kind)
@pytest.mark.parametrize("label", SAMPLES)
def test_the_table_is_what_the_optimizer_does(label: str, settings: AdamWSettings | MuonSettings) -> None:
    model = sample(label)
    names = {p: name for name, p in model.named_parameters()}
    rates = {"AdamW at `lr`": (False, 0.01), "Muon at `matrix_lr`": (True, 0.05)}
    placed = set()
    for group in build_optimizer(model, settings).param_groups:
        row = table()[group["name"]]
        assert group["weight_decay"] == (0.3 if row["decays"] else 0.0)
        assert (group.get("muon", False), group["lr"]) == rates[row[settings.kind]]
        for p in group["params"]:
            assert row_of(names[p]) == group["name"], names[p]
            placed.add(names[p])
    assert placed == set(names.values())


def test_the_table_names_nothing_that_no_model_has() -> None:
    seen = set()
    for label in SAMPLES:
        for name, _ in sample(label).named_parameters():
            seen |= set(name.split(".")[-2:])
    rows = table()
    assert set(rows) == {"matrices", "tables", "vectors"}
    assert set().union(*(row["names"] for row in rows.values())) - MARKS == seen - MARKS


@pytest.mark.parametrize("picture", PICTURES)
def test_the_committed_picture_shows_the_present_numbers(picture: str) -> None:
    _, curves = PICTURES[picture]
    assert f"images/{picture}" in PAGE.read_text("utf-8")
    with Image.open(IMAGES / picture) as image:
        assert image.info[DIGEST_KEY] == digest(curves()), f"draw it again: {DRAW}"


def test_drawing_again_gives_pictures_of_the_same_size_with_the_same_numbers(tmp_path: Path) -> None:
    draw_all(tmp_path)
    for picture in PICTURES:
        with Image.open(IMAGES / picture) as committed, Image.open(tmp_path / picture) as drawn:
            assert drawn.size == committed.size
            assert drawn.info[DIGEST_KEY] == committed.info[DIGEST_KEY]
            shades = drawn.convert("L").histogram()
            assert sum(shades[:200]) > 2000, "there is ink on it"


def test_the_digest_notices_a_change() -> None:
    curves = schedule_curves()
    before = digest(curves)
    x, y = curves["cosine"][100]
    curves["cosine"][100] = (x, y + 1e-5)
    assert digest(curves) != before
