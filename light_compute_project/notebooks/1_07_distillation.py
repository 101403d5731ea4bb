# %% [markdown]
# # 1.07 Distillation
#
# A block is taken out of the model. Training the rest on text for a while heals it; training it towards the
# *distribution* of the whole model tells it
# more per token: not only which token came, but how likely every other one was. With the source's distribution $p$
# and the model's $q$:
#
# $$ \mathrm{KL}(p \,\|\, q) = \sum_v p_v \log \frac{p_v}{q_v} \quad\text{(forward)}, \qquad \mathrm{KL}(q \,\|\, p)
# \quad\text{(reverse)} $$
#
# Forward covers everything that the source finds possible; reverse prefers what it finds likely.

# %%
import course

directory = course.model_directory()
steps = 40 if course.QUICK else 200
depth = {"method": "depth", "remove": 1}
recipes: dict[str, list[dict[str, object]] | str] = {"bare": [depth]}
for loss in ("ce", "forward", "reverse", "jsd"):
    recipes[loss] = [depth, {"method": "distill", "loss": loss, "steps": steps, "batch": 8, "lr": 1e-3}]
report = course.compare(directory, recipes)
print(report.table())

# %% [markdown]
# `bare` is the model without the block, `ce` is trained on text alone; the others read the source's distribution over
# the same tokens.

# %%
quality = {line.row.name: line.row for line in report.lines}
print({name: (round(row.delta, 4), round(row.kl, 4)) for name, row in quality.items()})
assert quality["forward"].kl < quality["bare"].kl

# %% [markdown]
# ## What fools people
#
# - A teacher with another vocabulary: probabilities of other tokens cannot be compared, and the library refuses it.
# - "Healed" on the text that is measured: the table measures text that neither calibration nor training has seen.
#
# ## Try
#
# - `width` instead of `depth`. - Twice the steps with half the batch.
