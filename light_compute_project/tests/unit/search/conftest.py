"""A stand-in for `train.py` that leaves what a run leaves, in hundredths of a second a step."""

from __future__ import annotations

from pathlib import Path

import pytest

FAKE_TRAIN = """
import json, math, os, pathlib, signal, sys, time

given = dict(a.lstrip("+").split("=", 1) for a in sys.argv[1:])
given = {key: value.strip("'") for key, value in given.items()}
folder = pathlib.Path(given.get("run.dir", "runs")) / given["run.name"]
lr, seed = float(given.get("optim.lr", 0.01)), int(given.get("seed", 1337))
steps, every = int(given["trainer.max_steps"]), int(given["trainer.eval_interval"])
pause = float(os.environ.get("FAKE_STEP_S", "0.005"))
metrics, saved = folder / "metrics.jsonl", folder / "checkpoints" / "step"


def fail(kind, message, code):
    report = os.environ["LIGHT_COMPUTE_ENDING"]
    if kind:
        pathlib.Path(report).write_text(json.dumps({"kind": kind, "message": message}))
    sys.exit(code)


stop = []
signal.signal(signal.SIGTERM, lambda number, frame: stop.append(143))
signal.signal(signal.SIGINT, lambda number, frame: stop.append(130))
if given.get("run.resume") != "auto" and folder.exists():
    fail("ConfigError", "the run folder is in use", 2)
saved.parent.mkdir(parents=True, exist_ok=True)
if os.environ.get("FAKE_CONFIG"):
    from litgpt_core.config.compose import dump, load

    (folder / "config.yaml").write_text(dump(load(sys.argv[1:]).plain))
begin = int(saved.read_text()) if saved.exists() else 0
with (folder / "starts").open("a") as file:
    file.write(f"{os.getpid()} {begin}\\n")
if seed == 2:
    fail("CheckpointError", "no such checkpoint\\n  try:    another one", 2)
if seed == 3:
    raise RuntimeError("a bug")
rows = [r for r in map(json.loads, metrics.read_text().splitlines()) if r["step"] <= begin] if metrics.exists() else []
metrics.write_text("".join(json.dumps(r) + "\\n" for r in rows))
loss = None
for step in range(begin + 1, steps + 1):
    time.sleep(pause)
    if lr >= 1 and step > every:
        fail("Diverged", "the loss (nan) became infinite", 2)
    loss = 1 + abs(math.log10(lr) + 2) + 5 * math.exp(-step / 10)
    if step % every == 0:
        with metrics.open("a") as file:
            row = {"step": step, "tokens": step * 10, "val_loss": loss, "val_bpb": loss / 2, "train_loss": loss}
            file.write(json.dumps(row) + "\\n")
    if stop:
        saved.write_text(str(step))
        fail("Interrupted", f"stopped after step {step}", stop[0])
(folder / "final").mkdir(exist_ok=True)
saved.write_text(str(steps))
whole = {"val_loss": 1 + abs(math.log10(lr) + 2), "val_bpb": 0.5 + seed % 7}
final = {"step": steps, "tokens": steps * 10}
summary = {"final": final, "whole_split": whole, "best": {}, "train_s": 1.0, "n_params": 5}
(folder / "summary.json").write_text(json.dumps(summary))
print("done")
"""


@pytest.fixture
def fake_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`train.py` in a folder that is the current one; seed 2 is a mistake, 3 a bug, a rate of 1 or more diverges."""
    script = tmp_path / "train.py"
    script.write_text(FAKE_TRAIN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return script
