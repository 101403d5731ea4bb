"""Errors that a user can cause, one base class and few kinds.

Every message says three things: what was given, what is needed, and what to type. Scripts print the message without a
traceback and exit with `exit_code`. Programming mistakes are not here: those stay `assert`, `TypeError`, `ValueError`.
"""

from __future__ import annotations


class LightComputeError(Exception):
    """Base of all errors meant for the person at the keyboard.

    Args:
        given: What was found or received, as a full sentence.
        needed: What would have been right; may be empty when `given` already says it.
        fix: The command, setting or action that mends it; may be empty.
    """

    exit_code = 2
    silent = False
    """Somebody else has said it already."""

    def __init__(self, given: str, *, needed: str = "", fix: str = "") -> None:
        self.given, self.needed, self.fix = given, needed, fix
        lines = [given]
        if needed:
            lines.append(f"  needed: {needed}")
        if fix:
            lines.append(f"  try:    {fix}")
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[object, ...]:
        """Survive pickling: data-loader workers send errors to the main process."""
        return _rebuild, (type(self), self.given, self.needed, self.fix)


def _rebuild(kind: type[LightComputeError], given: str, needed: str, fix: str) -> LightComputeError:
    return kind(given, needed=needed, fix=fix)


class ConfigError(LightComputeError):
    """A setting is unknown, of the wrong type, or contradicts another."""


class DataError(LightComputeError):
    """A corpus is missing, unreadable, too small, or a prepared folder does not match its fingerprint."""


class TokenizerError(LightComputeError):
    """A tokenizer cannot be trained, loaded, or cannot represent the text it was given."""


class CheckpointError(LightComputeError):
    """A checkpoint directory is missing, corrupted, incomplete, of another model, or could not be written."""


class Diverged(LightComputeError):
    """Losses or weights became infinite or not a number: a result of the settings, not a slip."""


class EnvironmentProblem(LightComputeError):
    """The machine lacks something that was requested: a device, a package, a compiler."""


class Interrupted(LightComputeError):
    """The run was stopped from outside (Ctrl-C, SIGTERM, a time budget) and has been saved."""

    def __init__(self, given: str, *, needed: str = "", fix: str = "", exit_code: int = 130) -> None:
        super().__init__(given, needed=needed, fix=fix)
        self.exit_code = exit_code
