# %% [markdown]
# # 1.11 One table
#
# All methods on one model, and which of them are worth anything: a method is *dominated* if another one is smaller,
# better and faster at once.

# %%
import course

from litgpt_core.compression.report_chart import draw

directory = course.model_directory()
names = (
    "int8",
    "int4",
    "gptq_int4",
    "best_int4",
    "mixed_4bit",
    "wanda_50",
    "two_of_four",
    "svd_80",
    "depth_1",
    "width_75",
)
report = course.compare(directory, {name: name for name in names}, rounds=0 if course.QUICK else 5)
print(report.table())

# %%
chart = course.FOLDER / "pareto.png"
draw(report, chart)
print(chart, chart.stat().st_size, "bytes")

# %% [markdown]
# ## Reading it
#
# - This model is small: its weights fit into the cache, so integers make it smaller but hardly faster. The table says
#   so instead of promising.
# - Trained for a minute, it is also easy to compress. Larger models that were trained for longer lose more.

# %%
dominated = [line.row.name for line in report.lines if "dominated" in line.text]
nothing = [line.row.name for line in report.lines if "SAVES NOTHING" in line.text]
print("dominated:", dominated, "saves nothing:", nothing)
assert "wanda_50" in nothing
