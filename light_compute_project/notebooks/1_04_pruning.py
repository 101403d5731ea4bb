# %% [markdown]
# # 1.04 Pruning
#
# Which weights may become zero? Three scores, each with more knowledge than the one before:
#
# | score | of weight $w_{ij}$ |
# |---|---|
# | magnitude | $\lvert w_{ij} \rvert$ |
# | Wanda | $\lvert w_{ij} \rvert \, \lVert x_j \rVert$, within each row |
# | SparseGPT | $w_{ij}^2 / (U_{jj})^2$; the rest of the row makes up for what is removed |

# %%
import course

directory = course.model_directory()
names = {"magnitude_50": "magnitude_50", "wanda_50": "wanda_50", "sparsegpt_50": "sparsegpt_50"}
report = course.compare(directory, {**names, "two_of_four": "two_of_four", "int8": "int8"})
print(report.table())

# %% [markdown]
# ## What fools people
#
# Half of the weights are zero, and the file is as large as before, the memory too, and nothing is faster: zeros are
# stored and multiplied like other
# numbers. The report says SAVES NOTHING. Only a pattern such as 2:4 (two of four neighbours remain) can be packed:
# values and places of 2 bits, 9/16
# of the bytes in 16-bit storage.

# %%
verdicts = {line.row.name: line.text for line in report.lines}
sizes = {line.row.name: line.row.file_bytes for line in report.lines}
assert verdicts["wanda_50"].startswith("SAVES NOTHING") and sizes["two_of_four"] < sizes["wanda_50"]
deltas = {line.row.name: line.row.delta for line in report.lines}
print({name: round(delta, 4) for name, delta in deltas.items()})

# %%
import matplotlib.pyplot as plt

curve = course.compare(
    directory,
    {
        f"{score}_{share}": [{"method": "prune", "score": score, "sparsity": share / 100}]
        for score in ("magnitude", "sparsegpt")
        for share in ((30, 70) if course.QUICK else (30, 50, 70))
    },
)
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
for score in ("magnitude", "sparsegpt"):
    points = [(int(l.row.name.rpartition("_")[2]), l.row.delta) for l in curve.lines if l.row.name.startswith(score)]
    axes.plot(*zip(*points, strict=True), marker="o", label=score)
axes.set(xlabel="zeros, %", ylabel="bits per byte lost")
axes.legend()
