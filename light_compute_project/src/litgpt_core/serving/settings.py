"""Settings of a server: address, limits, defaults. Checked before slow imports."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from litgpt_core.core.errors import ConfigError
from litgpt_core.generation.sampling_settings import SamplingSettings


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Settings of one server. Raises ConfigError, which names every invalid value at once."""

    host: str = "127.0.0.1"
    """Address to listen on; an address reachable from other machines needs `api_key` or `open_to_all`."""
    port: int = 8000
    """0 for any free port."""
    api_key: str | None = None
    """Clients must send it as `Authorization: Bearer KEY`; None disables authentication."""
    open_to_all: bool = False
    """Allow a reachable address without an API key."""
    cors_origins: tuple[str, ...] = ()
    """Origins of other sites whose pages may call this server, such as https://example.org."""
    hosts: tuple[str, ...] = ()
    """Host names of the server besides its address; requests with another Host header are refused."""
    slots: int = 32
    """Maximum number of sequences decoded at once."""
    queue: int = 64
    """Maximum number of requests waiting for a slot; further ones get status 429."""
    timeout_s: float = 120.0
    """Seconds after which a request is ended, including the time in the queue."""
    drain_s: float = 20.0
    """Seconds that running requests get to finish when the server stops."""
    max_tokens: int = 1024
    """Maximum `max_tokens` of a request."""
    default_tokens: int = 256
    """`max_tokens` of a request that does not set it."""
    max_prompt_chars: int = 100_000
    """Maximum number of characters of all messages together."""
    max_messages: int = 2_000
    """Maximum number of messages of a conversation."""
    max_body_bytes: int = 1_000_000
    """Maximum size of a request in bytes."""
    max_choices: int = 8
    """Maximum number of choices per request (`n`)."""
    max_loaded: int = 2
    """Maximum number of models in memory; the least recently used one is unloaded."""
    sampling: SamplingSettings = field(default_factory=lambda: SamplingSettings(temperature=0.8, top_k=50))
    """Default sampling settings of a request."""
    chat_log: Path | None = Path("chat_history.jsonl")
    """File of finished exchanges; None disables logging them."""
    runs: Path | None = Path("runs")
    """Folder of the trainings that the page shows; None shows none."""
    log_file: Path | None = Path("logs/serve.log")
    """File of the server's own log; None: only warnings on the console."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    precision: str = "auto"
    """auto, 32, bf16, 16."""
    compile: str = "auto"
    """auto, true, false: as for `generate.py`."""
    speculative: str = "off"
    """off, or ngram: see `generation.speculation`."""
    kv_cache: str = "auto"
    """auto, int8: as for `generate.py`."""

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
            problems.append("the API key has fewer than 8 characters: needed one that is hard to guess")
        if "*" in self.cors_origins:
            problems.append("cors_origins=*: needed explicit origins, such as https://example.org")
        if problems:
            raise ConfigError("; ".join(problems))
        if not self.is_private and self.api_key is None and not self.open_to_all:
            raise ConfigError(
                f"The server would be reachable from other machines at {self.host} without an API key.",
                needed="a key, the default address 127.0.0.1, or --open_to_all to confirm",
                fix=f"--host {self.host} --api_key_file FILE, or the variable LIGHT_COMPUTE_API_KEY, "
                f"or --host {self.host} --open_to_all",
            )

    @property
    def shown_runs(self) -> Path | None:
        """`runs`, except where anybody could read them: configs name folders of this machine."""
        return self.runs if self.is_private or self.api_key is not None else None

    @property
    def is_private(self) -> bool:
        """Whether it is reachable only from this machine."""
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
    "max_messages": 1,
    "max_body_bytes": 1000,
    "max_choices": 1,
    "max_loaded": 1,
}
