"""What keeps a suite: the baseline gets better on it from a quarter to a half to all of its training, each time by more
than two standard errors; on the standard ones in choice bits too. And what curves cost a run: nothing but time.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from litgpt_core.evaluate.session import compare
from litgpt_core.evaluate.suites.catalogue import SUITES

STEPS = (80, 160, 320)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_the_baseline_learns_every_suite(shell: Any) -> None:
    shell.run(shell.train_command("+experiment=baseline", "logger=none", "trainer.keep_checkpoints=4"), timeout=3000)
    run = shell.folder / "runs" / "baseline"
    checkpoints = [str(run / "checkpoints" / f"step-{step:08d}") for step in STEPS]
    shell.run(shell.command("evaluate.py", *checkpoints, "--suite", ",".join(SUITES), "--limit", "0"), timeout=1800)
    records = [json.loads((run / "evaluation" / f"step-{step:08d}.json").read_text()) for step in STEPS]
    for earlier, later in itertools.pairwise(records):
        for difference in compare(earlier, later):
            e = difference.estimate
            if difference.measure == "accuracy" or SUITES[difference.subject].standard:
                assert abs(e.value) > 2 * e.se, difference.sentence
                assert difference.better in (None, later["name"]), difference.sentence


@pytest.mark.nightly
def test_curves_change_no_bit_of_the_weights(shell: Any) -> None:
    smoke = (
        "+experiment=smoke",
        "logger=none",
        "trainer=deterministic",
        "trainer.max_steps=12",
        "model.block_size=512",
        "trainer.global_batch_size=2",
    )
    curves = ("evaluation.suites=[induction]", "evaluation.interval=5", "evaluation.of_a_kind=5")
    for name, more in (("without", ()), ("with_curves", curves)):
        shell.train(*smoke, *more, f"run.name={name}")
    hashes = [
        json.loads((shell.folder / "runs" / name / "final" / "checksums.json").read_text())["lit_model.pth"]["sha256"]
        for name in ("without", "with_curves")
    ]
    assert hashes[0] == hashes[1]
    lines = (shell.folder / "runs" / "with_curves" / "evaluation" / "curve.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [5, 10, 12]
