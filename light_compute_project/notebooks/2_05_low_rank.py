# %% [markdown]
# # 2.05 Low rank
#
# $W \approx U V$ with rank $r$ has $r (O + K)$ parameters instead of $O K$. The best $U V$ for the *weights* is the
# truncated singular value decomposition. The best for the *outputs* is that of $W S$ with $S S^\top = X^\top X$, the
# second moment of the inputs (SVD-LLM's whitening): directions that inputs never take cost nothing.

# %%
import course
import matplotlib.pyplot as plt
import torch

from litgpt_core import checkpoint
from litgpt_core.model.low_rank import break_even_rank

directory = course.real_model()
model = checkpoint.load_model(directory).float()
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
middle = model.transformer.h[len(model.transformer.h) // 2]
for name in ("attn.qkv", "attn.proj", "mlp.fc_1", "mlp.proj"):
    weight = middle.get_submodule(name).weight.detach()
    values = torch.linalg.svdvals(weight).square()
    share = values.cumsum(0) / values.sum()
    rank = int(break_even_rank(*weight.shape))
    print(f"{name:10} {tuple(weight.shape)}: break-even rank {rank}, which holds {share[rank - 1]:.0%} of the squares")
    axes.plot(torch.linspace(0, 1, len(share)), share, label=name)
axes.set(xlabel="share of the singular values", ylabel="share of the squares")
axes.legend()

# %% [markdown]
# ## What it costs

# %%
recipes: dict[str, list[dict[str, object]] | str] = {"int8": "int8"}
for share in (0.9, 0.8) if course.QUICK else (0.9, 0.8, 0.6):
    for kind in ("plain", "scaled", "whitened"):
        recipes[f"svd {kind} {share:.0%}"] = [{"method": "svd", "share": share, "kind": kind}]
report = course.compare(directory, recipes, tokens=course.REAL_TOKENS)
print(report.table())

# %%
rows = {line.row.name: line.row for line in report.lines}
ratio = rows["svd whitened 80%"].delta / rows["svd plain 80%"].delta
print(f"whitening leaves {ratio:.2f} of the plain decomposition's loss at 80 %")
for name in ("int8", "svd whitened 80%"):
    print(f"{name}: {rows[name].file_bytes / 1e6:.1f} MB, KL {rows[name].kl:.5f}")
assert rows["svd whitened 80%"].kl < rows["svd plain 80%"].kl

# %% [markdown]
# ## What fools people
#
# - "20 %" of what? Of the singular values, of the parameters, of the squares: papers differ. Here it is always the
#   parameters that remain.
# - The reconstruction error of weights. Spectra of trained matrices are nearly flat, so most of the error is in
#   directions that matter little or much, and only the inputs know which.
# - Two thin products can be slower than one: the verdict names the decoder that was used.
