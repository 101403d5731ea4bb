"""A model to talk to: found by what a person typed, loaded, and with the prompt style that its directory asks for."""

from __future__ import annotations

import time
from dataclasses import dataclass

from litgpt_core.checkpoint import FoundModel, discover, find_model
from litgpt_core.core.errors import CheckpointError
from litgpt_core.generation.engine import Engine
from litgpt_core.prompts import PromptStyle, explain_style, style_named

_TRAIN = "train one: python light_compute_project/scripts/train.py +experiment=smoke"


@dataclass(frozen=True, kw_only=True)
class ChatModel:
    """A loaded model and how to talk to it."""

    found: FoundModel
    """Where it came from."""
    engine: Engine
    """What writes."""
    style: PromptStyle | None
    """How conversations are written; None for a base model."""
    why: str
    """Where the style comes from, in a few words."""

    def introduction(self) -> list[str]:
        """What a person should know before the first message."""
        if self.style is None:
            return [
                f"Prompt style: none, because {self.why}. This is a base model: it does not answer, it only continues "
                "the text.",
                "  (--style human_assistant, or any other style, writes the conversation as a chat all the same.)",
            ]
        return [f"Prompt style: {self.style.name} ({self.style.description}), from {self.why}."]


@dataclass(frozen=True, kw_only=True)
class ModelLoader:
    """Loads models as the command line asked for it, at the start and when another one is wanted."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    precision: str = "auto"
    """auto, 32, bf16, 16."""
    compile: str = "auto"
    """auto, true, false."""
    style: str | None = None
    """A style's name that goes before what the directory says."""

    def __post_init__(self) -> None:
        if self.style is not None:
            style_named(self.style)

    def __call__(self, found: FoundModel) -> ChatModel:
        """Raises CheckpointError, TokenizerError, EnvironmentProblem, ConfigError: what is wrong with it."""
        if self.style is not None:
            chosen, why = style_named(self.style), "the command line"
        else:
            chosen, why = explain_style(found.directory)  # type: ignore[assignment]  # None is a base model
        engine = Engine.from_directory(found.directory, device=self.device, dtype=self.precision, compile=self.compile)
        return ChatModel(found=found, engine=engine, style=chosen, why=why)


def choose(wanted: str | None) -> tuple[FoundModel, list[str]]:
    """The model that is meant, and lines that say why it is that one.

    Args:
        wanted: What `find_model` takes; None means the newest that can be used.

    Raises CheckpointError where there is none.
    """
    if wanted is not None:
        found = find_model(wanted)
        return found, [f"Model: {describe(found)}."]
    around = discover()
    looked = "; ".join(around.looked_at)
    passed_over = [f"  passed over {line}" for line in around.passed_over]
    if not around.models:
        raise CheckpointError(
            "\n".join([f"No model was found. Looked at {looked}.", *passed_over]),
            needed="a trained or downloaded model",
            fix=_TRAIN,
        )
    newest, n = around.models[0], len(around.models)
    reason = "the only one there is" if n == 1 else f"the newest of {n}"
    return newest, [f"Model: {describe(newest)}: {reason}. Looked at {looked}.", *passed_over]


def describe(found: FoundModel) -> str:
    """Name, place, age and size in a few words."""
    return f"{found.name} ({found.directory}, {_ago(time.time() - found.modified)}, {found.n_bytes / 1e6:,.1f} MB)"


def _ago(seconds: float) -> str:
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            n = int(seconds // size)
            return f"{n} {name}{'s' if n > 1 else ''} ago"
    return "written just now"
