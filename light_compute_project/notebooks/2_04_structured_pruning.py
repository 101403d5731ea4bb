# %% [markdown]
# # 2.04 Fewer blocks, units and heads
#
# Structured pruning leaves an ordinary, smaller model: every program reads it, and every processor is faster with it.
# What is removed first is what changes least: for blocks the *influence*
#
# $$ 1 - \overline{\cos(x_{in}, x_{out})} $$
#
# of the residual stream, for hidden units and groups of heads their mean square times the weights that read them.
# Training the rest for a while towards the whole model heals part of the loss.

# %%
import course
import matplotlib.pyplot as plt
import torch

from litgpt_core import checkpoint
from litgpt_core.compression.structured import block_influence
from litgpt_core.compression.texts import calibration_windows
from litgpt_core.model.config import GPTConfig

directory = course.real_model()
model = checkpoint.load_model(directory).float()
c = GPTConfig.from_checkpoint(directory)
windows = calibration_windows(course.texts(directory), tokens=1024, length=min(256, c.block_size))
with torch.no_grad():
    influence = block_influence(model, windows)
print("influence of the blocks:", " ".join(f"{value:.2f}" for value in influence))
figure, axes = plt.subplots(figsize=(6, 2.5), layout="constrained")
axes.bar(range(len(influence)), influence)
axes.set(xlabel="block", ylabel="influence")

# %% [markdown]
# ## A fifth of the blocks, of the units, of the heads

# %%
fifth = max(1, c.n_layer // 5)
steps = 30 if course.QUICK else 100
heal = {"method": "distill", "steps": steps, "batch": 4, "lr": 1e-3 if course.QUICK else 2e-4}
cuts: dict[str, dict[str, object]] = {
    f"depth -{fifth}": {"method": "depth", "remove": fifth},
    "width 80%": {"method": "width", "keep": 0.8},
    f"heads -{1}": {"method": "heads", "keep": c.n_query_groups - 1},
}
recipes: dict[str, list[dict[str, object]] | str] = {}
for name, cut in cuts.items():
    recipes |= {name: [cut], f"{name}, healed": [cut, heal]}
report = course.compare(directory, recipes, tokens=course.REAL_TOKENS, rounds=0)
print(report.table())

# %%
rows = {line.row.name: line.row for line in report.lines}
for name in cuts:
    left = rows[f"{name}, healed"].delta / rows[name].delta
    print(f"{name}: {steps} steps leave {left:.0%} of the loss")
    assert rows[f"{name}, healed"].kl < rows[name].kl

# %% [markdown]
# ## What fools people
#
# - Healing is training, and its text counts: compare with the same training of an uncut model's rival of that size.
# - A model with one block less is one thirtieth smaller. The file column says what a cut is worth beside int8.
#
# ## Try
#
# - Twice the steps: how far does healing go? - `width` with 0.5.
