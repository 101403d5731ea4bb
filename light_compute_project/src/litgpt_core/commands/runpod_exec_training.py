"""Rent GPUs at RunPod through its own API: as lcp deploy --engine runpod, without SkyPilot. Needs RUNPOD_API_KEY.

lcp runpod plan +experiment=baseline --gpu RTX4090 --budget 5
lcp runpod up +experiment=baseline --gpu RTX4090 --budget 5

More: light_compute_project/docs/deployment_guide.md
"""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Parse, carry out."""
    from litgpt_core.deploy.rental.command import carry_out, parse

    return carry_out(parse(arguments, description=__doc__ or "", verb="runpod", engine="runpod"))
