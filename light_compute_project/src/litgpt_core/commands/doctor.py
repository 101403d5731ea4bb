"""Check this installation: Python, packages, torch, GPU, LitGPT, disk, configs, git.

    lcp doctor
    lcp doctor --gpu

Each line is ok, warn or fail, with the command that fixes it. Nothing is changed.
--gpu compares what the GPU computes with the CPU: logits, gradients, steps, resume, decoding, compilation, memory.
Exit code 1 if a line or a check fails, 0 otherwise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from litgpt_core.core.checkout import PROJECT_DIR, in_checkout
from litgpt_core.core.command_line import CommandParser


def main(arguments: Sequence[str]) -> int:
    """Parse, examine, print."""
    parser = CommandParser("doctor", description=__doc__)
    parser.add_argument("--gpu", action="store_true", help="check the GPU's numbers against the CPU's")
    parser.add_argument(
        "--device",
        default="auto",
        choices=("auto", "cuda", "mps", "cpu"),
        help="with --gpu: where; cpu rehearses the checks (auto)",
    )
    given = parser.parse_args(arguments)
    return _gpu(given.device) if given.gpu else _installation()


def _gpu(device: str) -> int:
    import torch  # after --help has been answered

    from litgpt_core.doctor.gpu_checks import gpu_to_check, run_gpu_checks
    from litgpt_core.doctor.results import show_results

    chosen = gpu_to_check(device)
    title = f"GPU checks, torch {torch.__version__} on {chosen}"
    return 0 if show_results(run_gpu_checks(chosen), title=title) else 1


def _installation() -> int:
    from litgpt_core.doctor.checks import examine, render

    levels: Counter[str] = Counter()
    root = PROJECT_DIR.parent if in_checkout() else None
    for finding in examine(root, folder=Path.cwd()):
        print(render(finding), flush=True)
        levels[finding.level] += 1
    print(f"{levels['ok']} ok, {levels['warn']} warn, {levels['fail']} fail")
    return 1 if levels["fail"] else 0
