# %% [markdown]
# # 2.08 Quantization-aware training
#
# Rounding after training takes weights as they are. Quantization-aware training multiplies by rounded weights and
# lets the gradient through as if nothing had been rounded (the *straight-through* estimator):
#
# $$ W_q = s \cdot \mathrm{clamp}(\mathrm{round}(W / s)), \qquad \nabla_W L := \nabla_{W_q} L $$
#
# The scales stay as rounding chose them, so what is trained is which code a weight gets. The result is stored and
# decoded like any other int4 model.

# %%
import course
import torch

from litgpt_core import checkpoint
from litgpt_core.checkpoint.compressed import read_compressed
from litgpt_core.model.fake_quant import FakeQuantLinear, rounded
from litgpt_core.model.grid import Grid
from litgpt_core.model.scale_search import search_scales

directory = course.real_model()

# %% [markdown]
# ## One layer

# %%
weight = checkpoint.load_model(directory).float().transformer.h[0].attn.proj
scales = search_scales(weight.weight.detach().reshape(-1, 32), Grid(4)).view(weight.out_features, -1)
layer = FakeQuantLinear(weight, bits=4, scales=scales)
x = torch.randn(4, weight.in_features)
layer(x).square().mean().backward()
print(
    "different numbers in the first group:",
    len(rounded(layer.weight, scales, bits=4)[0, :32].unique()),
    "of at most 16",
)
print("weights with a gradient:", f"{float((layer.weight.grad != 0).float().mean()):.0%}")

# %% [markdown]
# ## From GPTQ's codes, a few steps towards the source

# %%
steps = 30 if course.QUICK else 60
bits = 2 if course.QUICK else 4  # the small model of the quick mode loses nothing with 4
train = {"method": "qat", "steps": steps, "batch": 4, "lr": 3e-4 if course.QUICK else 5e-5, "bits": bits}
gptq: dict[str, object] = {"method": "gptq", "bits": bits, "head": 8}
recipes: dict[str, list[dict[str, object]] | str] = {"gptq": [gptq]}
for loss in ("ce", "forward"):
    recipes[f"gptq, then qat on {loss}"] = [gptq, {**train, "loss": loss}]
recipes["gptq, then reconstruct"] = [gptq, {"method": "reconstruct", "steps": 24 if course.QUICK else 48, "bits": bits}]
report = course.compare(directory, recipes, tokens=course.REAL_TOKENS)
print(report.table())

# %%
rows = {line.row.name: line for line in report.lines}
before, after = (read_compressed(rows[name].directory) for name in ("gptq", "gptq, then qat on forward"))
path = "transformer.h.0.attn.proj"
changed = (before.matrices[path].tensors()["codes"] != after.matrices[path].tensors()["codes"]).float().mean()
assert torch.equal(before.matrices[path].tensors()["scales"], after.matrices[path].tensors()["scales"])
print(f"{float(changed):.1%} of the bytes of {path} changed, none of its scales")
left = rows["gptq, then qat on forward"].row.kl / rows["gptq"].row.kl
print(f"{steps} steps leave {left:.0%} of the divergence; on text alone {rows['gptq, then qat on ce'].row.kl:.4f} nats")
assert left < 1

# %% [markdown]
# ## Block after block instead
#
# The loss of the whole model is one number per token for millions of weights: after a few steps it is mostly noise.
# `reconstruct` trains one block at a time to the activations of the source, a target as wide as the block at every
# token, with the inputs that the integer blocks before it produce. Scales and norms are trained too.

# %%
rebuilt = rows["gptq, then reconstruct"].row.kl / rows["gptq"].row.kl
print(f"block reconstruction leaves {rebuilt:.0%} of the divergence")
assert rebuilt < 1

# %% [markdown]
# ## The real training path
#
# `lcp train +experiment=qat init_from=DIR` does the same with any data set, optimizer and length, resumes exactly,
# and leaves `compressed/` in the run folder.
#
# ## What fools people
#
# - Training on text alone also teaches the model that text: part of the gain is not about rounding. Compare the
#   column of the other domain.
# - A learning rate for training is far too large here: steps must be small beside the distance of two codes.
