"""The recipes that have a name. `recipe.py` checks them like those of a file."""

from __future__ import annotations

from typing import Any

RECIPES: dict[str, tuple[dict[str, Any], ...]] = {
    "int8": ({"method": "round", "bits": 8, "clip": "absmax"},),
    "int4": ({"method": "round", "bits": 4},),
    "gptq_int4": ({"method": "gptq", "bits": 4},),
    "awq_int4": ({"method": "awq"}, {"method": "round", "bits": 4, "clip": "activations"}),
    "best_int4": ({"method": "awq"}, {"method": "gptq", "bits": 4}),
    "reconstructed_int4": ({"method": "awq"}, {"method": "gptq", "bits": 4}, {"method": "reconstruct"}),
    "qat_int4": ({"method": "awq"}, {"method": "gptq", "bits": 4}, {"method": "qat"}),
    "mixed_4bit": ({"method": "mixed", "budget": 5.0},),
    "rotated_int4": ({"method": "rotate"}, {"method": "round", "bits": 4}),
    "smooth_w8a8": ({"method": "smooth"}, {"method": "round", "bits": 8, "clip": "absmax"}),
    "magnitude_50": ({"method": "prune", "score": "magnitude"},),
    "wanda_50": ({"method": "prune", "score": "wanda"},),
    "sparsegpt_50": ({"method": "prune", "score": "sparsegpt"},),
    "two_of_four": ({"method": "prune", "score": "sparsegpt", "pattern": "2:4"},),
    "svd_80": ({"method": "svd", "share": 0.8},),
    "plain_svd_80": ({"method": "svd", "share": 0.8, "kind": "plain"},),
    "depth_1": ({"method": "depth", "remove": 1},),
    "healed_depth_1": ({"method": "depth", "remove": 1}, {"method": "distill"}),
    "width_75": ({"method": "width", "keep": 0.75},),
}
"""Recipes by name."""
