"""The door that `scripts/train.py` knocks at: from what was typed to a finished run.

Signals are in hand from the start. Imports grow slower from line to line (config, then torch, then Lightning), so that
mistakes are found before the next is paid for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from litgpt_core.training.stop import stop_on_signals

if TYPE_CHECKING:
    from litgpt_core.training.runner import RunResult


def train(overrides: Sequence[str], *, command: str) -> RunResult:
    """Compose and check the config, settle the plan, carry the run out.

    Args:
        overrides: Command-line arguments such as `+experiment=baseline`.
        command: What the user typed, for the record.

    Raises:
        LightComputeError: Anything the user can mend; `Interrupted` when a signal ended the run.
    """
    with stop_on_signals() as stop:
        from litgpt_core.config import load

        config = load(overrides)

        from litgpt_core.training.compiler_start import prepare_compiler

        prepare_compiler(config.trainer)

        from litgpt_core.training.plan import make_plan

        plan = make_plan(config, command=command)

        from litgpt_core.training.lean_import import import_lightning_lean

        import_lightning_lean()

        from litgpt_core.training.runner import run

        return run(plan, stop=stop)
