# %% [markdown]
# # 2.02 Weights and activations
#
# Integer arithmetic needs both factors as integers. The CPU kernel rounds activations to 8 bits with a scale for
# every 32 of them, when it multiplies by integer weights: W8A8 and W4A8. What does that add, and do smoothing and
# rotation help?

# %%
import course
import torch

from litgpt_core import checkpoint, tokenizers
from litgpt_core.compression.quality import SourceModel
from litgpt_core.compression.texts import measurement_windows
from litgpt_core.model.quantized import QuantLinear

directory = course.real_model()
recipes: dict[str, list[dict[str, object]] | str] = {
    "w8a8": "int8",
    "w8a8 smoothed": "smooth_w8a8",
    "w4a8": "int4",
    "w4a8 rotated": "rotated_int4",
}
report = course.compare(directory, recipes, tokens=course.REAL_TOKENS)
print(report.table())

# %% [markdown]
# ## The activations' share of it
#
# The same integer weights, with exact activations.

# %%
source = checkpoint.load_model(directory).float()
windows = {
    domain.name: measurement_windows(domain, tokens=course.REAL_TOKENS, length=min(512, source.config.block_size))
    for domain in course.texts(directory)
}
measured = SourceModel(source, windows, tokenizers.load(directory))
made = {line.row.name: line.directory for line in report.lines[1:]}
for name in ("w8a8", "w4a8"):
    model = checkpoint.load_model(made[name]).float()
    for module in model.modules():
        if isinstance(module, QuantLinear):
            module.int8_activations = False
    exact = measured.compare(model)
    both = {line.row.name: line.quality for line in report.lines}[name]
    added = {domain: round(both[domain].delta - exact[domain].delta, 4) for domain in exact}
    print(f"{name}: rounding activations adds {added} bits per byte")

# %% [markdown]
# ## Where the outliers are

# %%
largest: dict[str, float] = {}


def look(name: str):
    def hook(_: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        x = arguments[0].flatten(0, -2).abs()
        largest[name] = max(largest.get(name, 0.0), float((x.amax(0) / x.mean(0).median()).max()))

    return hook


hooks = [
    module.register_forward_pre_hook(look(name))
    for name, module in source.named_modules()
    if isinstance(module, torch.nn.Linear) and ".h." in name
]
with torch.no_grad():
    source(next(iter(windows.values()))[:2, :-1])
for each in hooks:
    each.remove()
for name, size in sorted(largest.items(), key=lambda item: -item[1])[:6]:
    print(f"{name:32} largest activation: {size:,.0f} times a typical one")

# %% [markdown]
# ## What fools people
#
# - SmoothQuant was made for one scale per *tensor*. With a scale for every 32 channels there is little left to smooth:
#   the table says whether it still pays.
# - "4 bits" for activations is another world: this kernel does not do it, and the course does not claim it.
