"""Two texts that differ: where does the model hold the difference? Activation patching and attribution patching.

The second text runs with single activations of the first put in place (Vig et al. 2020; Meng et al. 2022). What is
measured is a difference of two logits at the last token,

    metric = logit(answer of the first text) - logit(answer of the second text)
    effect = (metric patched - metric of the second) / (metric of the first - metric of the second)

so 0 is nothing and 1 restores the first text's answer. Attribution patching (Nanda 2023) is the first-order estimate,
gradient * (first - second), of all patches from one backward pass. Both texts must have equally many tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from litgpt_core.core.errors import ConfigError
from litgpt_core.interpret.resume import hidden_from
from litgpt_core.interpret.subject import Subject
from litgpt_core.interpret.tracing import Edit, trace
from litgpt_core.model.gpt import GPT

LONGEST = 256
"""Tokens of the texts."""
MOST_TOKENS = 1024
"""Tokens that run at once."""


class Pair:
    """Two texts of T tokens, everything recorded of both.

    Args:
        model: Without gradients.
        first, second: (1, T) ids.
        answers: Token ids of the metric; None: see `answers_of`.

    Raises:
        ConfigError: The texts have different lengths, or are too long, or the model answers both alike.
    """

    def __init__(self, model: GPT, first: Tensor, second: Tensor, *, answers: tuple[int, int] | None = None) -> None:
        if first.shape != second.shape:
            raise ConfigError(
                f"--prompt has {first.size(1)} tokens, --against has {second.size(1)}",
                needed="two texts of equally many tokens, so that each position has its counterpart",
                fix="replace words by words of the same number of tokens",
            )
        if first.size(1) > LONGEST:
            raise ConfigError(
                f"--prompt has {first.size(1)} tokens, too many to patch each position",
                needed=f"at most {LONGEST} tokens",
                fix="a shorter --prompt and --against",
            )
        self.model, self.first, self.second = model, first, second
        recorded = ["*.resid_pre", "*.z", "*.attn_out", "*.mlp_out", "logits"]
        with torch.no_grad(), trace(model, recorded) as clean:
            model(first)
        with torch.no_grad(), trace(model, recorded) as corrupted:
            model(second)
        self.clean, self.corrupted = clean, corrupted
        size = model.config.vocab_size
        ends = [seen["logits"][0, -1, :size] for seen in (clean, corrupted)]
        self.answers = answers or answers_of(*ends)
        self.start, self.goal = (float(self.metric(end[None])) for end in reversed(ends))
        if self.start == self.goal:
            raise ConfigError(
                "the model continues --prompt and --against alike",
                needed="two texts whose next tokens differ",
                fix="change a word that decides what follows",
            )

    def metric(self, logits: Tensor) -> Tensor:
        """(B, V) -> (B,) difference of the answers' logits."""
        return logits[:, self.answers[0]] - logits[:, self.answers[1]]

    def effect(self, metric: Tensor) -> Tensor:
        """A metric as a share of the way from the second text to the first."""
        return (metric - self.start) / (self.goal - self.start)

    @torch.no_grad()
    def patched(self, edits: dict[str, Edit], *, rows: int, layer: int | None = None) -> Tensor:
        """Effects (rows,) of `rows` copies of the second text with edits; row i is the i-th patch.

        Args:
            edits: As for `trace`.
            rows: Copies.
            layer: The first that is edited: those before are not computed again. None: the whole model runs.
        """
        with trace(self.model, edit=edits):
            if layer is None:
                hidden = self.model.hidden(self.second.expand(rows, -1))
            else:
                before = self.corrupted[f"{layer}.resid_pre"]
                hidden = hidden_from(self.model, before.expand(rows, -1, -1), layer)
        return self.effect(self.metric(self.model.lm_head(hidden[:, -1])))

    def each(self, name: str, place: Callable[[Tensor, Tensor], None], *, count: int) -> Tensor:
        """(count,) effects of as many patches of one activation, some at a time.

        Args:
            name: The activation.
            place: Called with copies of the second text's activation (R, ...), one for each patch, and the patches'
                numbers (R,); puts the first text's in place.
            count: Patches.
        """
        found = []
        for numbers in torch.split(torch.arange(count), max(1, MOST_TOKENS // self.second.size(1))):

            def change(value: Tensor, numbers: Tensor = numbers) -> Tensor:
                changed = value.clone()
                place(changed, numbers)
                return changed

            found.append(self.patched({name: change}, rows=len(numbers), layer=int(name.partition(".")[0])))
        return torch.cat(found)

    def by_position(self, name: str) -> Tensor:
        """(T,) effects of putting the activation (B, T, C) in place at one position each.

        Before the first token that differs both texts have the same activations, so the effect is 0.
        """
        begin = int((self.first != self.second)[0].int().argmax())

        def place(changed: Tensor, numbers: Tensor) -> None:
            positions = begin + numbers
            changed[torch.arange(len(numbers)), positions] = self.clean[name][0, positions]

        found = self.each(name, place, count=self.first.size(1) - begin)
        return torch.cat([found.new_zeros(begin), found])

    def by_head(self, layer: int) -> Tensor:
        """(nh,) effects of putting one head's z in place at all positions."""
        name = f"{layer}.z"

        def place(changed: Tensor, heads: Tensor) -> None:
            changed[torch.arange(len(heads)), :, heads] = self.clean[name][0, :, heads].transpose(0, 1)

        return self.each(name, place, count=self.model.config.n_head)

    def gradients(self, names: list[str]) -> dict[str, Tensor]:
        """Gradients of the metric of the second text with respect to activations, in effects."""
        start = {"embed": lambda x: x.detach().requires_grad_()}
        with torch.enable_grad(), trace(self.model, names, edit=start, detach=False) as seen:
            hidden = self.model.hidden(self.second)
            effect = self.effect(self.metric(self.model.lm_head(hidden[:, -1]))).sum()
            found = torch.autograd.grad(effect, list(seen.values()))
        return dict(zip(seen, found, strict=True))

    def estimates(self) -> tuple[Tensor, Tensor]:
        """First-order effects of all patches of `resid_pre` (n_layer, T) and of heads (n_layer, nh)."""
        gradients = self.gradients(["*.resid_pre", "*.z"])
        products = {name: g * (self.clean[name] - self.corrupted[name]) for name, g in gradients.items()}
        layers = range(self.model.config.n_layer)
        positions = torch.stack([products[f"{layer}.resid_pre"][0].sum(dim=-1) for layer in layers])
        heads = torch.stack([products[f"{layer}.z"][0].sum(dim=(0, 2)) for layer in layers])
        return positions, heads


def answers_of(first: Tensor, second: Tensor) -> tuple[int, int]:
    """The answers to two texts, of their logits (V,): the most probable tokens, or, where these are the same, those
    whose probability differs most.
    """
    a, b = int(first.argmax()), int(second.argmax())
    if a != b:
        return a, b
    p, q = first.log_softmax(dim=-1), second.log_softmax(dim=-1)
    return int((p.exp() * (p - q)).argmax()), int((q.exp() * (q - p)).argmax())


def view(subject: Subject) -> dict[str, Any]:
    """Effects by layer and position of the residual stream, attention and MLP; by layer and head; and the estimates."""
    pair = Pair(subject.model, subject.prompt_ids(), subject.against_ids())
    layers = range(subject.model.config.n_layer)
    places = {
        kind: torch.stack([pair.by_position(f"{layer}.{kind}") for layer in layers])
        for kind in ("resid_pre", "attn_out", "mlp_out")
    }
    heads = torch.stack([pair.by_head(layer) for layer in layers])
    estimated, estimated_heads = pair.estimates()
    both = torch.stack([heads.flatten(), estimated_heads.flatten()])
    return {
        "prompt": subject.token_texts(pair.first[0]),
        "against": subject.token_texts(pair.second[0]),
        "answer": subject.token_text(pair.answers[0]),
        "other": subject.token_text(pair.answers[1]),
        "metric_prompt": pair.goal,
        "metric_against": pair.start,
        "positions": {kind: values.tolist() for kind, values in places.items()},
        "heads": heads.tolist(),
        "estimated": estimated.tolist(),
        "estimated_heads": estimated_heads.tolist(),
        "agreement": float(torch.corrcoef(both)[0, 1]) if both.size(1) > 1 else None,
    }
