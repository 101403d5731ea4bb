"""Numbers to sentences, each with what chance would give, so that noise is called noise.

A difference is stated only where it exceeds what the best of as many random ones would reach: with K parts tested, a
part counts at z standard errors where z is that of a two-sided test at 5 % divided by K (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

from litgpt_core.interpret.pictures_charts import spread

Values = dict[str, Any]

SHOWN_LAYERS = 6
"""Of a list of layers in a sentence."""
STRONG_SCORE = 0.3
"""From this share of its attention on, a head is called by the name of what it attends to."""


def threshold(tested: int) -> float:
    """Standard errors that a difference must exceed among `tested` ones: 5 % for all together."""
    return NormalDist().inv_cdf(1 - 0.05 / (2 * max(1, tested)))


def findings(views: dict[str, Values]) -> list[dict[str, str]]:
    """One or more sentences for each view that was computed: view and text."""
    found = []
    for name, sentences in _SENTENCES.items():
        if name in views:
            found += [{"view": name, "text": text} for text in sentences(views[name])]
    return found


def _budget(v: Values) -> list[str]:
    most = max(v["rows"], key=lambda row: row["parameters"])
    work = max(v["rows"], key=lambda row: row["flops"])
    return [
        f"{v['parameters']:,} parameters, most of them in {most['group']} "
        f"({most['parameters'] / v['parameters']:.0%}); "
        f"{work['group']} does {work['flops'] / v['flops']:.0%} of the {v['flops'] / 1e6:,.3g} MFLOP per token."
    ]


def _surprisal(v: Values) -> list[str]:
    bits = [b for b in v["bits"] if b is not None]
    if not bits:
        return []
    worst = max(range(len(v["bits"])), key=lambda i: v["bits"][i] or 0.0)
    return [
        f"The prompt costs {sum(bits) / len(bits):.1f} bits per token; the least expected token is "
        f"{v['prompt'][worst]!r} with {v['bits'][worst]:.1f} bits, where {v['expected'][worst]!r} was expected."
    ]


def _lens(v: Values) -> list[str]:
    if "text_divergence" not in v:
        return []
    shares = v["text_divergence"]
    halved = next(n for n, value in enumerate(shares) if value <= shares[0] / 2) if shares[0] > 0 else 0
    listed = ", ".join(f"{shares[n]:.2f} ({v['layers'][n]})" for n in spread(len(shares), SHOWN_LAYERS))
    return [
        f"Of the way from the embedding to the prediction, half is made by {v['layers'][halved]}: the divergence from "
        f"the end is {listed} nats."
    ]


def _attribution(v: Values) -> list[str]:
    order = sorted(v["parts"].items(), key=lambda item: -abs(item[1]))[:3]
    listed = ", ".join(f"{name} {value:+.2f}" for name, value in order)
    return [
        f"After the prompt the first choice is {v['token']!r}, {v['logit']:.2f} above the mean logit; "
        f"the largest contributions are {listed}."
    ]


def _heads(v: Values) -> list[str]:
    said = []
    basis = f"{v['sequences']} random sequences of {v['length']} tokens"
    if v["trained_tokens"]:
        basis += f", after {v['trained_tokens'] / 1e6:,.1f} M tokens of training"
    for kind, word in (
        ("induction", "induction"), ("previous", "previous-token"), ("duplicate", "duplicate-token"), ("sink", "sink"),
    ):  # fmt: skip
        named = {
            f"L{layer}H{head}": score for layer, row in enumerate(v[kind]["scores"]) for head, score in enumerate(row)
        }
        best = max(named, key=lambda name: named[name])
        strong = [name for name, score in sorted(named.items(), key=lambda item: -item[1]) if score >= STRONG_SCORE]
        chance, control = v[kind]["chance"], v["control"]
        limits = f"chance {chance:.2f}" + (f", random offsets {control:.2f}" if kind != "sink" else "")
        if strong:
            some = ", ".join(f"{name} {named[name]:.2f}" for name in strong[:4])
            said.append(f"{len(strong)} {word} head{'s' * (len(strong) > 1)}: {some} ({limits}).")
        elif kind != "sink":
            said.append(f"No {word} head: the best score is {named[best]:.2f} of {best} ({limits}; {basis}).")
    clear = v["gain"] > 3 * v["gain_error"] and v["gain"] > 0.05
    said.append(
        f"Random tokens that repeat cost {v['first_loss']:.2f} nats the first time and {v['repeated_loss']:.2f} the "
        + ("second: the model copies from its context." if clear else "second: it does not copy from its context.")
    )
    return said


def _attention(v: Values) -> list[str]:
    heads = {
        f"L{layer}H{head}": (entropy, v["to_first"][layer][head])
        for layer, row in enumerate(v["entropy_bits"])
        for head, entropy in enumerate(row)
    }
    narrow = min(heads, key=lambda name: heads[name][0])
    on_first = sum(first > 0.5 for _, first in heads.values())
    return [
        f"On the prompt, {on_first} of {len(heads)} heads spend more than half of their attention on the first token; "
        f"{narrow} attends to the fewest tokens (entropy {heads[narrow][0]:.2f} bits; to all alike: "
        f"{v['uniform_entropy_bits']:.2f})."
    ]


def _ablation(v: Values) -> list[str]:
    limit = threshold(v["tested"])
    clear = [c for c in v["components"] if c["delta"] > limit * c["error"]]
    harmful = [c for c in v["components"] if c["delta"] < -limit * c["error"]]
    per_byte = 1.0 / (math.log(2) * v["bytes_per_token"]) if v["bytes_per_token"] else None
    first = "No part matters beyond noise"
    if clear:
        worst = clear[0]
        extra = f", {worst['delta'] * per_byte:.3f} bits per byte" if per_byte else ""
        first = (
            f"The loss rises most without {worst['name']}: {worst['delta']:+.3f} ± {worst['error']:.3f} nats per token"
            f"{extra}; then without " + ", ".join(f"{c['name']} {c['delta']:+.3f}" for c in clear[1:4])
        ).removesuffix("; then without ")
    said = [f"{first}. {len(clear)} of {v['tested']} tested parts stand out from noise (beyond {limit:.1f} errors)."]
    if harmful:
        said.append("Without " + ", ".join(c["name"] for c in harmful[:4]) + " the model predicts this text better.")
    return said


def _patching(v: Values) -> list[str]:
    best = max(
        ((effect, layer, head) for layer, row in enumerate(v["heads"]) for head, effect in enumerate(row)),
        key=lambda item: item[0],
    )
    agreement = (
        "" if v["agreement"] is None else f" The first-order estimates agree with {v['agreement']:.2f} (correlation)."
    )
    return [
        f"{v['answer']!r} instead of {v['other']!r}: head L{best[1]}H{best[2]} alone restores {best[0]:.0%} of the "
        f"difference.{agreement}"
    ]


def _positions(v: Values) -> list[str]:
    first = v["ranges"][0]
    if v["gain"] is None or not math.isfinite(v["gain"]):
        return [f"The loss is {v['loss']:.2f} ± {v['error']:.2f} nats per token, {first['loss']:.2f} at the first one."]
    clear = v["gain"] > 3 * v["gain_error"]
    return [
        f"The loss is {first['loss']:.2f} nats at the first token of a window and {v['loss']:.2f} on average. From "
        f"positions 4 to 15 to the second half it falls by {v['gain']:.2f} ± {v['gain_error']:.2f}: "
        + ("the model makes use of long context." if clear else "more context does not help measurably.")
    ]


def _frequency(v: Values) -> list[str]:
    first, last = v["groups"][0], v["groups"][-1]
    return [
        f"The most frequent tenth of the tokens costs {first['loss']:.2f} nats (by frequency alone "
        f"{first['unigram']:.2f}), the rarest tenth {last['loss']:.2f} ({last['unigram']:.2f})."
    ]


def _neurons(v: Values) -> list[str]:
    dead, units = sum(layer["dead"] for layer in v["layers"]), sum(layer["units"] for layer in v["layers"])
    best = max((unit for layer in v["layers"] for unit in layer["shown"]), key=lambda unit: unit["selectivity"])
    return [
        f"{dead:,} of {units:,} neurons are dead on {v['tokens']:,} tokens. The most selective is {best['name']}: "
        f"{best['selectivity']:.0f} times its usual activation, at {best['examples'][0]['token']!r}."
    ]


def _probes(v: Values) -> list[str]:
    said = []
    for row in v["properties"]:
        best = max(range(len(v["layers"])), key=lambda n: row["accuracy"][n] - row["control"][n])
        accuracy, control = row["accuracy"][best], row["control"][best]
        best_other = max(control, row["majority"])
        spread = math.sqrt((accuracy * (1 - accuracy) + best_other * (1 - best_other)) / v["test_tokens"])
        word = "can be read" if accuracy > best_other + 3 * spread else "cannot be read beyond the controls"
        said.append(
            f"{row['property'].capitalize()!r} {word}: {accuracy:.0%} at the {v['layers'][best]} (random labels "
            f"{control:.0%}, majority {row['majority']:.0%})."
        )
    return said


def _tuned_lens(v: Values) -> list[str]:
    listed = ", ".join(
        f"{v['logit_lens'][n]:.2f} to {v['tuned_lens'][n]:.2f} ({v['layers'][n]})"
        for n in spread(len(v["layers"]), SHOWN_LAYERS)
    )
    return [f"The tuned lens brings the divergence of the layers from {listed} nats."]


def _autoencoder(v: Values) -> list[str]:
    recovered = "" if v["loss_recovered"] is None else f" ({v['loss_recovered']:.0%} of what the layer is worth)"
    return [
        f"{v['features']:,} features with {v['l0']:.0f} active leave {v['unexplained_variance']:.0%} of layer "
        f"{v['layer']}'s variance unexplained; {v['dead_share']:.0%} never fire. In the layer's place they raise the "
        f"loss from {v['loss']:.2f} to {v['spliced_loss']:.2f} nats{recovered}."
    ]


def _embeddings(v: Values) -> list[str]:
    best = sum(row[0] for row in v["cosines"]) / len(v["cosines"])
    return [
        f"The nearest neighbour of a token has a cosine of {best:.2f} on average (random directions: "
        f"{v['chance_cosine']:.2f}); two components hold {sum(v['variance']):.0%} of the variance."
    ]


def _weights(v: Values) -> list[str]:
    inside = [m for m in v["matrices"] if m["layer"] is not None and m["norm"] > 0]
    if not inside:
        return []
    least = min(inside, key=lambda m: m["effective_rank"] / min(m["shape"]))
    above = sum(m["above_random"] for m in inside) / len(inside)
    return [
        f"The lowest effective rank for its size is that of {least['name'].removeprefix('transformer.')}: "
        f"{least['effective_rank']:.0f} of {min(least['shape'])}. On average {above:.0f} singular values of a matrix "
        "are above what a random one has (before training: 0)."
    ]


def _dynamics(v: Values) -> list[str]:
    steps = v["steps"]
    said = (
        [f"Held-out loss from step {steps[0]} to {steps[-1]}: {v['loss'][0]:.2f} to {v['loss'][-1]:.2f} nats."]
        if v["loss"]
        else []
    )
    for kind in ("previous", "induction"):
        best = [max(max(row) for row in scores) for scores in v["heads"][kind]]
        reached = next((step for step, score in zip(steps, best, strict=True) if score >= STRONG_SCORE), None)
        said.append(
            f"The first {kind} head appears by step {reached} (score {max(best):.2f} at most)."
            if reached is not None
            else f"No {kind} head appears by step {steps[-1]} (best {max(best):.2f}, chance {v['chance'][kind]:.2f})."
        )
    return said


_SENTENCES: dict[str, Callable[[Values], list[str]]] = {
    "ablation": _ablation,
    "heads": _heads,
    "attention": _attention,
    "attribution": _attribution,
    "patching": _patching,
    "lens": _lens,
    "tuned_lens": _tuned_lens,
    "positions": _positions,
    "frequency": _frequency,
    "neurons": _neurons,
    "probes": _probes,
    "autoencoder": _autoencoder,
    "embeddings": _embeddings,
    "weights": _weights,
    "dynamics": _dynamics,
    "surprisal": _surprisal,
    "budget": _budget,
}
