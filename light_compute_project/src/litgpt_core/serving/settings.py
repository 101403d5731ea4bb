"""What a server may be told: addresses, limits, defaults. Checked at once, before anything slow is imported."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from litgpt_core.core.errors import ConfigError
from litgpt_core.generation.sampling_settings import SamplingSettings


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """How one server runs. ConfigError names every wrong value at once."""

    host: str = "127.0.0.1"
    """Address to listen on; one that others reach needs `api_key` or `open_to_all`."""
    port: int = 8000
    """0 takes a free one."""
    api_key: str | None = None
    """What clients must send as `Authorization: Bearer KEY`; None: nothing."""
    open_to_all: bool = False
    """Listen where others reach it although there is no key."""
    cors_origins: tuple[str, ...] = ()
    """Other sites whose pages may ask this server, such as https://example.org."""
    hosts: tuple[str, ...] = ()
    """Names under which the server is reached, besides its address: a page that calls it by another name is refused."""
    slots: int = 32
    """Most texts written at once."""
    queue: int = 64
    """Most requests that wait for a slot; the next gets 429."""
    timeout_s: float = 120.0
    """Seconds after which a request is ended, waiting included."""
    drain_s: float = 20.0
    """Seconds that running answers get when the server is asked to stop."""
    max_tokens: int = 1024
    """Most new tokens that a request may ask for."""
    default_tokens: int = 256
    """New tokens where a request does not say."""
    max_prompt_chars: int = 100_000
    """Most characters of all messages together."""
    max_body_bytes: int = 1_000_000
    """Most bytes of a request."""
    max_choices: int = 8
    """Most answers to one request (`n`)."""
    max_loaded: int = 2
    """Models kept in memory; the one unused for longest makes room."""
    sampling: SamplingSettings = field(default_factory=lambda: SamplingSettings(temperature=0.8, top_k=50))
    """How tokens are drawn where a request does not say."""
    chat_log: Path | None = Path("chat_history.jsonl")
    """Where finished exchanges are kept; None: nowhere."""
    log_file: Path | None = Path("logs/serve.log")
    """Where the server's own log goes besides warnings on the console; None: nowhere."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    precision: str = "auto"
    """auto, 32, bf16, 16."""
    compile: str = "auto"
    """auto, true, false: as for `generate.py`."""

    def __post_init__(self) -> None:
        problems = [
            f"{name}={getattr(self, name)}: needed at least {least}"
            for name, least in _LEAST.items()
            if getattr(self, name) < least
        ]
        if not 0 <= self.port <= 65535:
            problems.append(f"port={self.port}: needed 0 to 65535")
        if self.default_tokens > self.max_tokens:
            problems.append(f"default_tokens={self.default_tokens} is above max_tokens={self.max_tokens}")
        if self.api_key is not None and len(self.api_key) < 8:
            problems.append("the API key has fewer than 8 characters: needed one that nobody guesses")
        if "*" in self.cors_origins:
            problems.append("cors_origins=*: needed the sites by name, such as https://example.org")
        if problems:
            raise ConfigError("; ".join(problems))
        if not self.is_private and self.api_key is None and not self.open_to_all:
            raise ConfigError(
                f"The server would listen on {self.host}, where others reach it, without an API key.",
                needed="--api-key, the default address 127.0.0.1, or a second word that you mean it",
                fix=f"--host {self.host} --api-key SECRET, or --host {self.host} --open-to-all",
            )

    @property
    def is_private(self) -> bool:
        """Whether only this machine reaches it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


_LEAST = {
    "slots": 1,
    "queue": 0,
    "timeout_s": 0.1,
    "drain_s": 0.0,
    "max_tokens": 1,
    "default_tokens": 1,
    "max_prompt_chars": 1,
    "max_body_bytes": 1000,
    "max_choices": 1,
    "max_loaded": 1,
}
