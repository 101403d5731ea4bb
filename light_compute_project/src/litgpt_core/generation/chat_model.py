"""A model to chat with: found by name or path, loaded, with the prompt style of its directory."""

from __future__ import annotations

import time
from dataclasses import dataclass

from litgpt_core.checkpoint import FoundModel, discover, find_model
from litgpt_core.core.command_line import shown_command
from litgpt_core.core.errors import CheckpointError
from litgpt_core.generation.engine import Engine
from litgpt_core.prompts import PromptStyle, explain_style, style_named

_TRAIN = f"train one: {shown_command('train', '+experiment=smoke')}"


@dataclass(frozen=True, kw_only=True)
class ChatModel:
    """A loaded model and its prompt style."""

    found: FoundModel
    """Name and directory."""
    engine: Engine
    """Generates with the model."""
    style: PromptStyle | None
    """The format of its conversations; None for a base model."""
    style_source: str
    """Where the style was found, in a few words."""

    def introduction(self) -> list[str]:
        """The lines to show before the first message."""
        if self.style is None:
            return [
                f"Prompt style: none, because {self.style_source}. This is a base model: it does not answer, it only "
                "continues the text.",
                "  (--style human_assistant, or any other style, formats the conversation as a chat anyway.)",
            ]
        return [f"Prompt style: {self.style.name} ({self.style.description}), from {self.style_source}."]


@dataclass(frozen=True, kw_only=True)
class ModelLoader:
    """Loads models with the options of the command line, at the start and for /model."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    precision: str = "auto"
    """auto, 32, bf16, 16."""
    compile: str = "auto"
    """auto, true, false."""
    style: str | None = None
    """Name of a style that overrides the directory's."""

    def __post_init__(self) -> None:
        if self.style is not None:
            style_named(self.style)

    def __call__(self, found: FoundModel) -> ChatModel:
        """Load a model. Raises CheckpointError, TokenizerError, EnvironmentProblem or ConfigError."""
        if self.style is not None:
            style, source = style_named(self.style), "the command line"
        else:
            style, source = explain_style(found.directory)  # type: ignore[assignment]  # None is a base model
        engine = Engine.from_directory(found.directory, device=self.device, dtype=self.precision, compile=self.compile)
        return ChatModel(found=found, engine=engine, style=style, style_source=source)


def choose(name: str | None) -> tuple[FoundModel, list[str]]:
    """The model to load, and lines that explain the choice.

    Args:
        name: A name or path, as for `find_model`; None means the most recent usable checkpoint.

    Raises:
        CheckpointError: No model was found.
    """
    if name is not None:
        found = find_model(name)
        return found, [f"Model: {describe(found)}."]
    discovered = discover()
    searched = "; ".join(discovered.searched)
    skipped = [f"  skipped {line}" for line in discovered.skipped]
    if not discovered.models:
        raise CheckpointError(
            "\n".join([f"No model was found. Searched {searched}.", *skipped]),
            needed="a trained or downloaded model",
            fix=_TRAIN,
        )
    newest, n = discovered.models[0], len(discovered.models)
    reason = "the only model found" if n == 1 else f"the most recent of {n}"
    return newest, [f"Model: {describe(newest)}: {reason}. Searched {searched}.", *skipped]


def describe(found: FoundModel) -> str:
    """Name, directory, age and size in a few words."""
    return f"{found.name} ({found.directory}, {_ago(time.time() - found.modified)}, {found.n_bytes / 1e6:,.1f} MB)"


def _ago(seconds: float) -> str:
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            n = int(seconds // size)
            return f"{n} {name}{'s' if n > 1 else ''} ago"
    return "saved just now"
