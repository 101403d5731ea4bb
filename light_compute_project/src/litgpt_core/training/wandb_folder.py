"""What Weights & Biases keeps in a run folder: which of it the server does not hold, and the command that uploads it.

Standard library only. W&B writes every number to disk first, in `wandb/offline-run-TIME-ID/` or `wandb/run-TIME-ID/`.
"""

from __future__ import annotations

import shlex
from pathlib import Path

NOT_UPLOADED = "not-uploaded.txt"
"""In the record of an online run: the upload ended before everything was sent."""

_GIVEN_UP = b"filestream: fatal error"
"""What W&B's client writes to its own log when it stops uploading (0.23 to 0.31)."""
_MOST_LOG_BYTES = 20_000_000


def gave_up(record: Path) -> bool:
    """Whether the client stopped uploading before the end, as it does when the server refuses for good.

    Args:
        record: A folder `wandb/run-TIME-ID`.
    """
    try:
        with (record / "logs" / "debug-internal.log").open("rb") as file:
            return _GIVEN_UP in file.read(_MOST_LOG_BYTES)
    except OSError:
        return False


def not_uploaded(run_folder: Path) -> list[Path]:
    """W&B's folders in a run folder that the server does not hold, or not wholly; oldest first."""
    place = run_folder / "wandb"
    found = [*place.glob("offline-run-*"), *(marker.parent for marker in place.glob(f"run-*/{NOT_UPLOADED}"))]
    waiting = [path for path in found if not any(path.glob("*.wandb.synced"))]  # which `wandb sync` leaves
    return sorted(waiting, key=lambda path: path.name.removeprefix("offline-"))


def upload_command(run_folder: Path) -> str:
    """What to type to upload them; empty if there is nothing to upload."""
    waiting = not_uploaded(run_folder)
    online = [] if all(path.name.startswith("offline-") for path in waiting) else ["--include-online"]
    return (
        shlex.join(["uv", "run", "wandb", "sync", *online, *(path.as_posix() for path in waiting)]) if waiting else ""
    )
