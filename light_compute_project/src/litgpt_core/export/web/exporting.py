"""Exports a checkpoint as one HTML file: written under a temporary name, run in node where it is installed, kept."""

from __future__ import annotations

import html
import json
from importlib import resources
from pathlib import Path
from typing import Any

from litgpt_core.core.errors import CheckpointError
from litgpt_core.export.blocks import BlockMatrices, CheckpointSource
from litgpt_core.export.parity import Parity
from litgpt_core.export.single.arrays import ExportedFile
from litgpt_core.export.web.checking import check_page
from litgpt_core.export.web.content import chunks_of, header_of, refuse_unsupported, settings_of, vectors_of
from litgpt_core.export.web.conversation import conversation_of
from litgpt_core.export.web.definition import definition_of
from litgpt_core.export.writing import export_file, refuse_used
from litgpt_core.prompts import load_style

ENGINE = ("matvec.js", "weights.js", "model.js", "vocabulary.js", "sampling.js", "conversation.js")
_KIND = b'content="Light Compute Project: one page"'
MOST_BYTES = 500_000_000
"""Browsers keep the text of a page in one string, which has about 512 million characters in Chromium."""


def export_web(checkpoint: str | Path | None, target: Path, *, force: bool = False, check: bool = True) -> ExportedFile:
    """Write a checkpoint as one HTML file with 8-bit weights.

    Args:
        checkpoint: A name or path as for `litgpt_core.checkpoint.choose`.
        target: The file to create.
        force: Replace a page of this project.
        check: Run the page's engine in node, if it is installed, and compare.

    Raises:
        CheckpointError: The checkpoint cannot be read, has a part that the engine lacks, is too large, does not compute
            the same there, or `target` exists or cannot be written.
        TokenizerError: The page would return other ids.
    """
    target, source = Path(target), CheckpointSource.read(checkpoint)
    refuse_used(target, source=source.directory, force=force, contains=_KIND)
    refuse_unsupported(source.config)
    size = source.parameters() * 1.07 * 4 / 3
    if size > MOST_BYTES:
        raise CheckpointError(
            f"The page would have {size / 1e6:,.0f} MB.", needed=f"at most {MOST_BYTES / 1e6:,.0f}", fix="--format gguf"
        )
    tied = source.config.tie_embeddings
    matrices = BlockMatrices(source.weights, own=source.own_blocks(), tied=tied, bits=8)
    content = _content(source, matrices)

    def compare(page: Path) -> Parity:
        return check_page(page, source, source.model_of(matrices.used()), chat=content["chat"])

    parity = export_file(
        target,
        lambda path: _write(path, source, matrices, content),
        check=compare if check else None,
        n_bytes=int(size),
    )
    return ExportedFile(path=target, n_bytes=target.stat().st_size, parameters=source.parameters(), parity=parity)


def _content(source: CheckpointSource, matrices: BlockMatrices) -> dict[str, Any]:
    """Everything but the weights."""
    return {
        "config": settings_of(source.config),
        "vocabulary": definition_of(source.directory, source.tokenizer),
        "chat": conversation_of(load_style(source.directory), source.tokenizer),
        **header_of(matrices, vectors_of(source.config, source.weights), source.config),
    }


def static(name: str) -> str:
    """A file of the page's parts."""
    return (resources.files("litgpt_core.export.web") / "static" / name).read_text(encoding="utf-8")


def _write(path: Path, source: CheckpointSource, matrices: BlockMatrices, content: dict[str, Any]) -> None:
    """The page, weights last in memory: they are written chunk by chunk."""
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    for letter in "<>&\u2028\u2029":  # nothing in a vocabulary ends the element that holds it
        data = data.replace(letter, f"\\u{ord(letter):04x}")
    count = source.parameters()
    parts = {
        "TITLE": html.escape(source.config.name or "A language model"),
        "ABOUT": f"A language model of {count:,} weights, each an integer of 8 bits.",
        "STYLE": static("page.css"),
        "DATA": data,
        "ENGINE": "\n".join(static(name) for name in ENGINE),
        "PAGE": static("page.js"),
    }
    with path.open("w", encoding="utf-8", newline="\n") as file:
        before, *rest = static("page.html").split("{{")
        file.write(before)
        for part in rest:
            name, _, after = part.partition("}}")
            if name == "WEIGHTS":
                vectors = vectors_of(source.config, source.weights)
                for chunk in chunks_of(matrices, vectors, source.config):
                    file.write(f'<script type="text/plain" class="weights">{chunk}</script>\n')
            else:
                file.write(parts[name])
            file.write(after)
