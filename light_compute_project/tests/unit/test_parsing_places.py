"""Every place that parses JSON or YAML does so within the bounds of `core/parsing.py`, or is listed with a reason."""

from __future__ import annotations

import ast
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src" / "litgpt_core"
CALLS = {
    *("json.load", "json.loads", "yaml.safe_load", "yaml.load", "yaml.full_load", "yaml.unsafe_load", "pickle.load"),
    *("pickle.loads", "torch.load", "np.load", "OmegaConf.load", "marshal.loads"),
}
OWN = "its own child's answer"
WRITTEN = "what the export has just written, to compare it"
REPOSITORY = "a file of this repository or package"
LISTED = {
    "checkpoint/load.py torch.load": "after check_torch_file, with weights_only=True",
    "compression/speed.py json.loads": OWN,
    "core/line_child.py json.loads": OWN,
    "core/parsing.py json.loads": "here",
    "core/parsing.py yaml.load": "here, with a safe loader",
    "doctor/kernel_rate.py json.loads": OWN,
    "doctor/machine.py json.loads": OWN,
    "doctor/model_checks.py yaml.safe_load": REPOSITORY,
    "doctor/training_checks.py json.loads": OWN,
    "evaluate/core_metric.py json.loads": "one line of a data set that the user names",
    "export/gguf/llama_cpp.py json.load": OWN,
    "export/gguf/llama_cpp.py json.loads": OWN,
    "export/huggingface/folder.py torch.load": "after check_torch_file, with weights_only=True",
    "export/single/arrays.py json.loads": WRITTEN,
    "export/single/arrays.py np.load": WRITTEN,
    "prompts/template_child.py json.loads": "its parent's request",
    "serving/bodies.py json.loads": "the body of a request, whose length `guard` has limited",
    "planning/zoo.py json.loads": REPOSITORY,
    "planning/zoo.py yaml.safe_load": REPOSITORY,
    "serving/markup_child.py json.loads": "its parent's request",
    "tokenizers/huggingface_training.py json.loads": "what the library has just written",
    "upstream/manifest.py json.loads": "a path of one line",
    "upstream/names.py json.loads": REPOSITORY,
    "upstream/pin.py json.loads": "pip's record of an installed package",
}
OTHER_PACKAGES = ("data/",)
"""Which bounds its texts in its own way: conversations line by line."""


def test_parsers_are_called_within_bounds() -> None:
    found = set()
    for file in sorted(SOURCE.rglob("*.py")):
        name = file.relative_to(SOURCE).as_posix()
        if name.startswith(OTHER_PACKAGES):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in CALLS:
                found.add(f"{name} {ast.unparse(node.func)}")
                if ast.unparse(node.func) == "torch.load":
                    assert any(
                        each.arg == "weights_only" and ast.unparse(each.value) == "True" for each in node.keywords
                    )
    assert found == LISTED.keys(), "use core/parsing.py there, or list the place with a reason"
