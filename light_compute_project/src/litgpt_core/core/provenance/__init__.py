"""What a result depends on besides its config: packages, builds, machine, threads, switches, and the code itself.

Facts for the record, gathered in a fraction of a second when a run starts; nothing here decides anything. Reading two
records and saying what differs is `audit`.
"""

from litgpt_core.core.provenance.facts import machine_facts
from litgpt_core.core.provenance.source import CodeState, black_out, code_state, encode

__all__ = ["CodeState", "black_out", "code_state", "encode", "machine_facts"]
