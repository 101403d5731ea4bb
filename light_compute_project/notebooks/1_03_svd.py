# %% [markdown]
# # 1.03 Low rank
#
# A matrix $W$ of $O \times K$ numbers is replaced by $U V$ with rank $r$. That is smaller only if
#
# $$ r\,(O + K) < O K $$
#
# The truncated singular value decomposition is the nearest matrix of rank $r$ to $W$. But a layer's outputs matter,
# not its weights: with inputs
# $X$, factor $X^\top X = L L^\top$, decompose $W L$ and multiply by $L^{-1}$ afterwards (SVD-LLM, arXiv 2403.07378).

# %%
import course
import matplotlib.pyplot as plt
import torch

from litgpt_core import checkpoint
from litgpt_core.model.low_rank import break_even_rank

directory = course.model_directory()
model = checkpoint.load_model(directory).float()
linear = model.transformer.h[0].mlp.fc
values = torch.linalg.svdvals(linear.weight.detach())
rows, columns = linear.weight.shape
print(f"{rows} x {columns}: full rank {min(rows, columns)}, saves below rank {break_even_rank(rows, columns):.0f}")

# %%
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
axes.plot((values**2).cumsum(0) / (values**2).sum())
axes.axvline(break_even_rank(rows, columns), color="#c2410c", linestyle="--")
axes.set(xlabel="rank", ylabel="share of the squared norm")

# %% [markdown]
# The spectrum of a trained matrix is flat: below the break-even rank (dashed) much of its norm is gone. "20 %
# compression" must therefore say 20 %
# of what: of the parameters here, never of the singular values.

# %%
recipes = {
    f"{kind}_{int(share * 100)}": [{"method": "svd", "kind": kind, "share": share}]
    for kind in ("plain", "scaled", "whitened")
    for share in (0.8,)
}
report = course.compare(directory, {**recipes, "int8": "int8"})
print(report.table())
deltas = {line.row.name: line.row.delta for line in report.lines}
assert deltas["whitened_80"] < deltas["plain_80"]

# %% [markdown]
# The report says what users of such methods find out later: at 80 % of the parameters in 16 bits, low rank is larger
# than 8-bit integers and loses more.
#
# ## Try
#
# - `share` of 0.5 and 0.95. - Which layers have the flattest spectrum?
