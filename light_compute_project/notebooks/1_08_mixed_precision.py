# %% [markdown]
# # 1.08 Mixed precision
#
# Not every matrix deserves as many bits. A diagonal estimate of what rounding $W$ by $D$ costs the loss:
#
# $$ \Delta \approx \tfrac12 \sum_{ij} F_{ij} D_{ij}^2, \qquad F_{ij} = \mathbb{E}\left[(\partial \ell / \partial
# w_{ij})^2\right] $$
#
# Start with 4 bits everywhere, and give 8 to the matrix with the largest gain per byte, until the budget is spent.

# %%
import course
import matplotlib.pyplot as plt

from litgpt_core import checkpoint
from litgpt_core.compression.mixed import rounding_costs
from litgpt_core.compression.state import WorkingModel
from litgpt_core.compression.texts import calibration_windows, window_length

directory = course.model_directory()
work = WorkingModel(checkpoint.load_model(directory).float())
length = window_length(work.model.config.block_size)
windows = calibration_windows(course.texts(directory), tokens=length * 8, length=length)
paths = [path for path, part in work.parts.linears() if part.role != "head"]
costs = rounding_costs(work, windows, paths, clip="mse")
for path in paths:
    print(f"{path:32} 4 bits: {costs[path][4]:.6f} nats per token, 8 bits: {costs[path][8]:.8f}")

# %%
budgets = (4.5, 5.5, 6.5) if course.QUICK else (4.5, 5.0, 5.5, 6.5, 7.5, 8.5)
report = course.compare(
    directory, {f"mixed_{budget}": [{"method": "mixed", "budget": budget, "head": None}] for budget in budgets}
)
print(report.table())

# %%
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
axes.plot(
    [line.row.file_bytes / 1e6 for line in report.lines[1:]], [line.row.delta for line in report.lines[1:]], marker="o"
)
axes.set(xlabel="file, MB", ylabel="bits per byte lost")
