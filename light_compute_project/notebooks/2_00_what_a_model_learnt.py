# %% [markdown]
# # 2.00 What has a model learnt?
#
# A transformer adds. Every head and every MLP reads the residual stream, and adds something to it:
#
# $$ x_L = x_0 + \sum_{l,h} \text{head}_{l,h} + \sum_l \text{MLP}_l, \qquad \text{logits} = W_U\,\text{norm}(x_L) $$
#
# So the model can be taken apart without an approximation. This notebook does it on a small model that was trained on
# Python sources: it records, it reads, it changes, and it asks each time what chance would give.

# %%
import course
import matplotlib.pyplot as plt
import torch

from litgpt_core import interpret
from litgpt_core.interpret import known_models
from litgpt_core.interpret.ablation import Ablation
from litgpt_core.interpret.attribution import attribute
from litgpt_core.interpret.decompose import traced_parts
from litgpt_core.interpret.findings import threshold
from litgpt_core.interpret.head_scores import head_scores, plain_tokens, repeated_tokens
from litgpt_core.interpret.lens import lens_log_probs
from litgpt_core.interpret.looked_at import looked_at
from litgpt_core.interpret.names import components
from litgpt_core.interpret.patching import Pair

torch.manual_seed(0)
subject = interpret.load_subject(course.model_directory(), prompt="for row in rows:\n    total = total + ro")
model, ids = subject.model, subject.prompt_ids()
layers = range(model.config.n_layer)
assert subject.windows is not None, "the held-out text of the run was not found"

# %% [markdown]
# ## Recording
#
# `trace` records activations by name while the model computes what it always computes. The names are listed by
# `lcp analyze RUN --names`; those of TransformerLens (`blocks.1.attn.hook_pattern`) are understood, too.

# %%
with torch.no_grad(), interpret.trace(model, ["*.pattern", "*.resid_post", "*.attn_out", "*.mlp_out", "embed"]) as seen:
    logits = model(ids)
print({name: tuple(value.shape) for name, value in seen.items() if name.startswith(("0.", "embed"))})

parts = seen["embed"] + sum(seen[f"{layer}.attn_out"] + seen[f"{layer}.mlp_out"] for layer in layers)
error = (parts - seen[f"{model.config.n_layer - 1}.resid_post"]).abs().max()
print(f"largest difference between the sum of all parts and the last residual stream: {float(error):.1e}")
assert error < 1e-3

# %% [markdown]
# ## Reading: when does the prediction form?
#
# The **logit lens** applies the last norm and the head to the residual stream of every layer. At the last layer it is
# the model's own prediction, exactly; before, it is a guess at what the layers have agreed on so far. Below, the three
# most probable next bytes after the prompt.

# %%
for layer, log_probs in enumerate(lens_log_probs(model, ids)):
    best = log_probs[0, -1].topk(3)
    shown = ", ".join(
        f"{subject.token_text(int(token))!r} {float(value.exp()):.0%}"
        for token, value in zip(best.indices, best.values, strict=True)
    )
    print(f"after {layer} layers: {shown}")

# %% [markdown]
# ## Whose merit is it?
#
# A logit is a product with the last residual stream, and that is a sum. **Direct logit attribution** gives every part
# its share; the mean over the vocabulary is subtracted first, because a constant added to all logits changes nothing.

# %%
parts_of, recorded = traced_parts(model, ids, last_only=True)
last = recorded[f"{model.config.n_layer - 1}.resid_post"]
token = int(logits[0, -1, : model.config.vocab_size].argmax())
added = attribute(model, parts_of, last, token=token, position=0, centred=True)
largest = sorted(added.items(), key=lambda item: -abs(item[1]))[:10]

figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
axes.barh([name for name, _ in largest][::-1], [value for _, value in largest][::-1], color="#2563eb")
axes.set_xlabel(f"added to the logit of {subject.token_text(token)!r}")

row = logits[0, -1, : model.config.vocab_size]
print(f"sum of all parts {sum(added.values()):.4f}, logit above the mean {float(row[token] - row.mean()):.4f}")
assert abs(sum(added.values()) - float(row[token] - row.mean())) < 1e-3

# %% [markdown]
# ## What do the heads attend to?
#
# Random tokens that repeat can only be predicted by looking back. A head scores for *induction* what it attends to the
# token that followed the current one the last time. Each sequence repeats with a period of its own: with a fixed one,
# positions alone would solve it.
#
# **The score of the best of many heads is never 0.** So two numbers stand beside each score: what a head gets that
# attends to all tokens alike, and what the best head gets for *random other* offsets.

# %%
length = min(96, model.config.block_size)
tokens, periods = repeated_tokens(plain_tokens(subject), sequences=16, length=length, seed=0)
scores = head_scores(model, tokens, periods)
figure, axes = plt.subplots(1, 3, figsize=(8, 2.4), layout="constrained")
for axis, kind in zip(axes, ("previous", "duplicate", "induction"), strict=True):
    axis.imshow(scores[kind]["scores"], vmin=0, vmax=1, cmap="Blues")
    axis.set(title=kind, xlabel="head", ylabel="layer")
    best_score = max(map(max, scores[kind]["scores"]))
    print(
        f"{kind:9} best {best_score:.2f}, chance {scores[kind]['chance']:.2f}, random offsets {scores['control']:.2f}"
    )

# %% [markdown]
# For comparison, a model whose weights were written by hand to hold the two-layer circuit: a head that writes the
# previous token next to each token, and one that looks for the current token there.

# %%
circuit = known_models.induction()
by_hand, its_periods = repeated_tokens(torch.arange(16), sequences=8, length=24, seed=2, periods=(12, 16))
found = head_scores(circuit, by_hand, its_periods)["induction"]["scores"]
print("induction scores of the circuit, (layer, head):", [[round(score, 2) for score in row] for row in found])
assert found[1][0] > 0.99

# %% [markdown]
# ## Changing: what does a part do for the loss?
#
# Attention weights say where a head reads, not whether it matters. **Ablation** puts the part's mean in its place and
# measures the loss on held-out text. Twenty parts are tested, and among twenty one is easily two standard errors from
# 0 without a reason: each has to exceed the threshold of a test at 5 % divided by their number.

# %%
windows = subject.some_windows(8 if course.QUICK else 32)
run = Ablation(model, windows)
deltas = {str(part): run.delta(part) for part in components(model.config)}
limit = threshold(len(deltas))
ranked = sorted(deltas.items(), key=lambda item: -item[1][0])
for name, (delta, spread) in ranked[:6]:
    print(f"without {name:5} {delta:+.4f} ± {spread:.4f} nats per byte{'' if delta > limit * spread else '  (noise)'}")
print(f"{sum(d > limit * e for d, e in deltas.values())} of {len(deltas)} beyond {limit:.1f} standard errors")

# %% [markdown]
# ## Patching: where is the difference between two texts?
#
# The second text runs with one activation of the first in its place. Effect 1: the first text's answer is restored; 0:
# nothing happens. Before the place where the texts differ, the effect is exactly 0, because the activations are equal.

# %%
first, second = "for row in rows:\n    total = total + r", "for col in cols:\n    total = total + c"
pair = Pair(model, *(torch.tensor([subject.tokenizer.encode(text)]) for text in (first, second)))
effects = torch.stack([pair.by_position(f"{layer}.resid_pre") for layer in layers])
figure, axes = plt.subplots(figsize=(8, 2), layout="constrained")
axes.imshow(effects, vmin=-1, vmax=1, cmap="RdBu_r", aspect="auto")
labels = [repr(text)[1:-1] for text in subject.token_texts(pair.first[0])]
axes.set(ylabel="layer", xticks=range(len(labels)), xticklabels=labels)
differing = int((pair.first != pair.second)[0].nonzero()[0])
assert differing == 0 or effects[:, :differing].abs().max() < 1e-5
print("effect of the last position at each layer's input:", [round(float(value), 2) for value in effects[:, -1]])

# %% [markdown]
# ## One answer
#
# `looked_at` is the small function behind *What did it look at?*: the attention from the place where one token of an
# answer was written, mean over heads, and *rollout*, which follows attention through the tokens in between.

# %%
answer = subject.tokenizer.encode("w")
found_weights = looked_at(model, ids[0].tolist(), answer, position=0)
place = max(range(len(found_weights["average"])), key=lambda n: found_weights["average"][n])
print(f"most attention on average: byte {place}, {subject.token_text(found_weights['ids'][place])!r}")
assert abs(sum(found_weights["average"]) - 1) < 0.02

# %% [markdown]
# ## Try
#
# - `lcp analyze RUN` does all of this and more at once. Which of its findings would you have believed without the
#   numbers for chance?
# - Train for longer (without `COURSE_QUICK`, or `COURSE_MODEL=DIR` for a model of your own): when does an induction
#   head form?
# - Replace the mean by zeros: `Ablation(model, windows, method="zero")`. Why is the effect larger, and which is the
#   fairer question?
