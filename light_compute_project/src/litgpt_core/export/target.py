"""Checks the target of an import or export before any work is done."""

from __future__ import annotations

from litgpt_core.core.replaceable import refuse_taken as refuse_taken
