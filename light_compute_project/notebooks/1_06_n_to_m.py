# %% [markdown]
# # 1.06 N of M
#
# Zeros in any place save nothing, but a pattern can be packed: of every M adjacent weights of a row, N remain. Stored
# are the N values and, for each,
# its place among M, in 2 bits for M = 4. In 16-bit storage 2:4 takes
#
# $$ \frac{2 \cdot 16 + 2 \cdot 2}{4 \cdot 16} = \frac{9}{16} $$
#
# of the dense bytes.

# %%
import course
import torch

from litgpt_core.compression.pruning import kept_of_m
from litgpt_core.model.sparse import pack_sparse, unpack_sparse

# %% [markdown]
# ## Ten lines

# %%
weight = torch.randn(8, 32, generator=torch.Generator().manual_seed(0))
pruned = (weight * kept_of_m(weight.abs(), n=2, m=4)).bfloat16()
values, places = pack_sparse(pruned, n=2, m=4)
print(
    "first block:", pruned[0, :4].tolist(), "values", values[0, :2].tolist(), "places", f"{int(places[0, 0]) & 15:04b}"
)
assert torch.equal(unpack_sparse(values, places, n=2, m=4), pruned)
print("bytes:", values.nbytes + places.nbytes, "of", pruned.nbytes)
assert (values.nbytes + places.nbytes) * 16 == pruned.nbytes * 9

# %% [markdown]
# ## The model

# %%
directory = course.model_directory()
recipes = {
    f"{score}_{pattern.replace(':', '_of_')}": [{"method": "prune", "score": score, "pattern": pattern}]
    for score in ("magnitude", "wanda", "sparsegpt")
    for pattern in (("2:4",) if course.QUICK else ("2:4", "4:8", "2:8"))
}
report = course.compare(directory, {**recipes, "int8": "int8"})
print(report.table())
deltas = {line.row.name: line.row.delta for line in report.lines}
sizes = {line.row.name: line.row.file_bytes for line in report.lines}
assert sizes["sparsegpt_2_of_4"] < 0.7 * sizes["source, bf16"]

# %% [markdown]
# ## What fools people
#
# The file is smaller; memory and speed are not, because the matrices are expanded when they are loaded. No processor
# here multiplies by the packed form
# faster than by the dense one. 8-bit integers take about the same bytes and lose less.
