# %% [markdown]
# # 1.01 Rounding
#
# A group of weights $w_1 \dots w_n$ becomes integers $q_i$ and one scale $s$:
#
# $$ q_i = \mathrm{clamp}(\mathrm{round}(w_i / s)), \qquad w_i \approx s\, q_i $$
#
# The smaller the group, the better a scale fits, and the more bits the scales take. And the scale need not reach the
# largest weight: clipping it
# makes all others finer.

# %%
import course
import matplotlib.pyplot as plt
import torch

from litgpt_core import checkpoint
from litgpt_core.compression.rounding import round_matrix

directory = course.model_directory()
model = checkpoint.load_model(directory).float()
weight = model.transformer.h[0].attn.qkv.weight.detach()

# %% [markdown]
# ## Ten lines
#
# The library's `round_matrix` on one matrix, and the same by hand.

# %%
group = weight[:, :32]
largest = group.gather(1, group.abs().argmax(1, keepdim=True))
scale = (largest / -8).half().float()
by_hand = (group / scale).round().clamp(-8, 7) * scale
library = round_matrix(weight, bits=4, clip="absmax").dense()[:, :32]
print("largest difference:", float((by_hand - library).abs().max()))
assert torch.allclose(by_hand, library, atol=1e-6)

# %% [markdown]
# ## Error of one matrix: bits, groups, clipping

# %%
errors = {}
for bits in (8, 4, 3, 2):
    for per in ("tensor", "channel", "group"):
        for clip in ("absmax", "mse"):
            rounded = round_matrix(weight, bits=bits, per=per, clip=clip).dense()
            errors[bits, per, clip] = float((rounded - weight).norm() / weight.norm())
for bits in (8, 4, 3, 2):
    row = "  ".join(
        f"{per}: {errors[bits, per, 'absmax']:.4f} / {errors[bits, per, 'mse']:.4f}"
        for per in ("tensor", "channel", "group")
    )
    print(f"{bits} bits, absmax / mse   {row}")
assert errors[4, "group", "mse"] <= errors[4, "group", "absmax"] < errors[4, "tensor", "absmax"]

# %%
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
for per in ("tensor", "channel", "group"):
    axes.plot(
        [2, 3, 4, 8], [errors[bits, per, "mse"] for bits in (2, 3, 4, 8)], marker="o", label=f"one scale per {per}"
    )
axes.set(xlabel="bits", ylabel="relative error of a matrix", yscale="log")
axes.legend()

# %% [markdown]
# ## What the model loses
#
# An error of a matrix says little; bits per byte of text that the model has not seen say what it costs.

# %%
recipes = {
    f"int{bits}_{per}": [{"method": "round", "bits": bits, "per": per, "head": None}]
    for bits in (8, 4, 2)
    for per in ("channel", "group")
}
report = course.compare(directory, recipes)
print(report.table())

# %% [markdown]
# ## What fools people
#
# - "4 bits" without a group size: the true bits per weight, everything included, are in the second column.
# - Codes of 2 and 3 bits are stored in 4 here: a worse model, not a smaller file.
