# %% [markdown]
# # 1.09 Outliers in activations
#
# The CPU kernel multiplies integers by integers: activations are rounded to 8 bits too, with one scale per 32 of
# them. One large channel makes the scale of
# its group coarse for the other 31. SmoothQuant moves part of it into the weights,
#
# $$ W x = (W \, \mathrm{diag}(s)) (x / s), \qquad s_k = \max|x_k|^{\alpha} / \max|W_k|^{1 - \alpha} $$
#
# and a rotation $R$ of the residual stream spreads it over all channels: $W x = (W R)(R^\top x)$.

# %%
import course
import torch

from litgpt_core.compression.equivalent import hadamard
from litgpt_core.model import grid

# %% [markdown]
# ## A planted outlier

# %%
generator = torch.Generator().manual_seed(0)
x = torch.randn(500, 128, generator=generator)
x[:, 17] *= 60


def error(activations: torch.Tensor) -> float:
    """Relative error of rounding every channel but the outlier."""
    rounded = grid.dequantize(*grid.activation_codes(activations))
    return float((rounded - activations).norm() / activations.norm())


plain = grid.dequantize(*grid.activation_codes(x)) - x
neighbours = [k for k in range(32) if k != 17]
print("error of the 31 neighbours:", round(float(plain[:, neighbours].norm() / x[:, neighbours].norm()), 4))
print("of a group without outlier:", round(float(plain[:, 32:64].norm() / x[:, 32:64].norm()), 4))
rotation = hadamard(128, seed=0)
rotated = x @ rotation
back = grid.dequantize(*grid.activation_codes(rotated)) @ rotation.T - x
print("neighbours, rotated:       ", round(float(back[:, neighbours].norm() / x[:, neighbours].norm()), 4))
scales = x.abs().amax(0).sqrt()
smoothed = (grid.dequantize(*grid.activation_codes(x / scales)) * scales) - x
print("neighbours, smoothed:      ", round(float(smoothed[:, neighbours].norm() / x[:, neighbours].norm()), 4))
assert smoothed[:, neighbours].norm() < plain[:, neighbours].norm()

# %% [markdown]
# ## The model
#
# Groups of 32 already confine an outlier to its neighbours, so there is little left to win in a small model: measure
# before you believe.

# %%
directory = course.model_directory()
report = course.compare(
    directory,
    {
        "int8": "int8",
        "smooth_w8a8": "smooth_w8a8",
        "int4": "int4",
        "smooth_int4": [{"method": "smooth"}, {"method": "round", "bits": 4}],
    },
)
print(report.table())
