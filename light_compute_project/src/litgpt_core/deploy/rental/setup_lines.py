"""How the project is installed on a machine, and the command line of its training: lists of words."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from litgpt_core.deploy.rental.request import Place, RentalRequest

RUNTIME = ".venv/requirements-installed-without-dev"
"""Target of the Makefile: exactly the packages of requirements.txt, without the tools of development."""


def setup_lines(*, local: bool) -> list[str]:
    """Shell lines, run in the code's folder; nothing for a rehearsal, which uses this Python."""
    return [] if local else [f"make {RUNTIME}"]


def training_command(request: RentalRequest, place: Place, located: Sequence[str], *, local: bool) -> list[str]:
    """The training, run in the code's folder, without its limit of time.

    Args:
        request: The rental.
        place: The kind of machine: its settings for micro-batch and strategy come before the user's.
        located: Settings by which the training finds what travelled.
        local: A rehearsal: this Python, with the code that travelled.
    """
    here = ["env", "PYTHONPATH=light_compute_project/src", sys.executable]
    start = here if local else [".venv/bin/python"]
    own = [text for text in request.overrides if not text.startswith(_DECIDED)]
    given = {text.lstrip("+").partition("=")[0] for text in own}
    planned = [text for text in place.overrides if text.partition("=")[0] not in given]
    cuda = [] if local or "trainer.accelerator" in given else ["trainer.accelerator=cuda"]
    # a config group such as trainer=fsdp must stand before settings of the same section
    first = [text for text in planned if text.startswith("trainer=")]
    rest = [text for text in planned if text not in first]
    return [
        *(*start, "-P", "-m", "litgpt_core", "train"),
        *(*first, *own, *rest, *cuda, *located),
        *(f"run.name={request.name}", "run.dir=$LCP_HERE/runs", "run.resume=auto"),
    ]


_DECIDED = ("run.name=", "run.dir=", "run.resume=", "trainer.max_session_time=")
"""What the machine's own command line says instead."""
