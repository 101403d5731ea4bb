"""Links in folders of others: a file that is copied or read from a folder must lie in it.

A downloaded folder may hold `chat_template.jinja -> ~/.ssh/id_rsa`; what is made of the folder may be published.
"""

from __future__ import annotations

from pathlib import Path

from litgpt_core.core.errors import CheckpointError


def leads_out(file: Path) -> bool:
    """Whether `file` is reached through a link that leaves its folder.

    The cache of the Hugging Face hub is fine: `models--ORG--NAME/snapshots/COMMIT/file -> ../../blobs/HASH`.
    """
    folder, real = file.parent.resolve(), file.resolve()
    if real.is_relative_to(folder):
        return False
    cached = folder.parent.name == "snapshots"
    return not (cached and real.is_relative_to(folder.parent.parent / "blobs"))


def refuse_leading_out(file: Path) -> Path:
    """`file`, which need not exist. Raises CheckpointError if it is a link that leaves its folder."""
    if file.is_symlink() and leads_out(file):
        raise CheckpointError(
            f"{file} is a link to {file.resolve()}, outside its folder.",
            needed="files that lie in the folder, or the cache of the Hugging Face hub as it is downloaded",
            fix=f"if you trust the link, copy the file: cp --remove-destination {file.resolve()} {file}",
        )
    return file
