"""Rent GPUs for a training under a hard budget, over regions and clouds: plan, rent, follow, bring home, end.

lcp deploy plan +experiment=baseline --gpu RTX4090,A100 --budget 5
lcp deploy up +experiment=baseline --gpu RTX4090 --budget 5
lcp deploy down --all

More: light_compute_project/docs/deployment_guide.md
"""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Parse, carry out."""
    from litgpt_core.deploy.rental.command import carry_out, parse

    return carry_out(parse(arguments, description=__doc__ or ""))
