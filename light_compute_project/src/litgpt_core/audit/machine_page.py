"""`environment_info.md`: what this machine computes with, for people. Written by this function, never by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from litgpt_core.audit.causes import look_up
from litgpt_core.audit.report import Table, brief, markdown_table
from litgpt_core.core.checkout import PROJECT_DIR
from litgpt_core.core.environment import machine_facts
from litgpt_core.core.source_code import code_state

PAGE = PROJECT_DIR / "environment_info.md"
COMMAND = "uv run lcp audit --environment_info"

_SECTIONS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    (
        "Machine",
        (
            ("system", "platform"),
            ("processor", "cpu"),
            ("vendor, family, model, stepping", "processor"),
            ("usable processors", "threads.usable_processors"),
            ("torch's vector width", "cpu_capability"),
            ("GPUs", "gpus"),
            ("NVIDIA driver", "driver"),
        ),
    ),
    (
        "Python and torch",
        (
            ("Python", "python"),
            ("torch", "torch_build.version"),
            ("torch's commit", "torch_build.commit"),
            ("compiler", "torch_build.compiler"),
            ("CUDA (build)", "torch_build.cuda"),
            ("cuDNN (build)", "torch_build.cudnn"),
            ("MKL", "torch_build.mkl"),
            ("oneDNN", "torch_build.onednn"),
            ("OpenMP", "torch_build.openmp"),
            ("hash of the build options", "torch_build.config_sha256"),
        ),
    ),
    (
        "Threads and switches",
        (
            ("torch threads", "threads.torch"),
            ("torch inter-op threads", "threads.torch_interop"),
            ("OpenMP and MKL threads", "threads.omp"),
            ("environment variables", "variables"),
            ("deterministic algorithms", "determinism.deterministic_algorithms"),
            ("TF32 in matrix products", "determinism.matmul_allow_tf32"),
            ("float32 matrix products", "determinism.float32_matmul_precision"),
            ("cuDNN benchmark mode", "determinism.cudnn_benchmark"),
        ),
    ),
    (
        "Code",
        (
            ("commit", "git.commit"),
            ("uncommitted changes", "git.dirty"),
            ("source files of litgpt_core", "source_files"),
            ("hash of these files", "code.package_sha256"),
            ("hash of all packages", "packages_sha256"),
        ),
    ),
)


def write_environment_page(path: Path = PAGE) -> Path:
    """Look at this machine and write the page."""
    path.write_text(environment_page(here()), encoding="utf-8")
    return path


def here() -> dict[str, Any]:
    """Facts about this machine, without names of folders."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    facts = machine_facts(device=device)
    code = code_state().facts
    return {**facts, "code": code, "source_files": len(code["package_files"])}


def environment_page(facts: dict[str, Any]) -> str:
    """The page for these facts."""
    parts = [
        "# Environment",
        f"Generated on {facts['recorded_at'][:10]} by the command below; do not edit.",
        f"```text\n{COMMAND}\n```",
        "This is the machine on which the command was last run, as an example of what is recorded. Every run stores "
        "the same facts and more in its own `environment.json`. How they are used: "
        "[docs/reproducibility.md](docs/reproducibility.md).",
    ]
    for title, entries in _SECTIONS:
        rows: list[tuple[str, ...]] = [(name, _cell(look_up(facts, key))) for name, key in entries]
        parts += [f"## {title}", markdown_table(Table(title="", header=("what", "value"), rows=rows))]
    packages = facts["packages"].items()
    rows = [(name, str(entry["version"]), brief(entry["sha256"])) for name, entry in packages]
    parts += [
        "## Packages",
        "The hash is that of the package's RECORD without the installer's own files: the first 12 of 64 digits.",
        markdown_table(Table(title="", header=("package", "version", "hash"), rows=rows)),
    ]
    return "\n\n".join(parts) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(brief(item) for item in value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{key} {brief(item)}" for key, item in value.items() if item is not None) or "none"
    return "none" if value is None else brief(value)
