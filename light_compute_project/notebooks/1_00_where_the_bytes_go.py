# %% [markdown]
# # 1.00 Where the bytes go
#
# Decoding one token reads every weight once. A processor multiplies faster than its memory delivers, so the time of a
# token is close to
#
# $$ t \approx \frac{\text{bytes of the weights}}{\text{memory bandwidth}} + \text{a fixed part} $$
#
# Making a model smaller therefore makes it faster, as long as its weights do not fit into the processor's cache
# already. This notebook counts
# the bytes of each kind of layer.

# %%
import course
import matplotlib.pyplot as plt

from litgpt_core import checkpoint
from litgpt_core.compression.gridded_source import gridded_share
from litgpt_core.model.structure import structure

directory = course.model_directory()
model = checkpoint.load_model(directory).float()
parts = structure(model.config)

# %% [markdown]
# `structure` describes a model as data: every linear layer, its shape, and what it reads.

# %%
bytes_of: dict[str, int] = {}
for _, part in parts.linears():
    kind = "head and embedding (tied)" if part.role == "head" and parts.tied else part.name
    bytes_of[kind] = bytes_of.get(kind, 0) + part.rows * part.columns * 2
total = sum(bytes_of.values())
for kind, size in sorted(bytes_of.items(), key=lambda item: -item[1]):
    print(f"{kind:28} {size / 1e6:7.3f} MB in bfloat16, {size / total:5.1%}")

# %%
figure, axes = plt.subplots(figsize=(6, 2.6), layout="constrained")
axes.barh(list(bytes_of), [size / 1e6 for size in bytes_of.values()], color="#2563eb")
axes.set_xlabel("MB in bfloat16")

# %% [markdown]
# ## What integers would save
#
# Groups of 32 weights share a scale of 16 bits: 4 bits become 4.5, 8 become 8.5.

# %%
parameters = model.num_parameters()
for name, bits in {"bfloat16": 16.0, "int8": 8.5, "int4": 4.5}.items():
    print(f"{name:9} {parameters * bits / 8 / 1e6:7.3f} MB")

# %% [markdown]
# ## What fools people
#
# A model that came from a 4-bit file has at most 16 different weights in each group of 32. Rounding it to 4 bits
# again costs nothing, which says
# nothing about the method. The report looks for that:

# %%
print(f"groups of 32 weights with at most 16 levels: {gridded_share(model):.1%}")
assert gridded_share(model) < 0.5

# %% [markdown]
# ## Try
#
# - Set `COURSE_MODEL` to another checkpoint: which layer is the largest with a vocabulary of 50,000?
# - How many parameters must a model have so that its int4 weights are larger than your processor's cache?
