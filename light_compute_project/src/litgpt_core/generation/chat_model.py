"""A model to chat with: found by name or path, loaded, with the prompt style of its directory."""

from __future__ import annotations

from dataclasses import dataclass

from litgpt_core.checkpoint import FoundModel
from litgpt_core.generation.engine import Engine
from litgpt_core.prompts import PromptStyle, explain_style, style_named


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
    kv_cache: str = "auto"
    """auto, int8."""
    speculative: str = "off"
    """off, ngram."""
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
        engine = Engine.from_directory(
            found.directory,
            device=self.device,
            dtype=self.precision,
            compile=self.compile,
            kv_cache=self.kv_cache,
            speculative=self.speculative,
            keep_cache=True,
        )
        return ChatModel(found=found, engine=engine, style=style, style_source=source)
