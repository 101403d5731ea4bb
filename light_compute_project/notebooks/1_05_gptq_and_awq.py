# %% [markdown]
# # 1.05 GPTQ and AWQ
#
# Rounding to nearest treats every weight alike. Calibrated methods know the inputs $X$ of each layer.
#
# **GPTQ** rounds column after column and lets the later columns make up for the error. With $H = X^\top X$ and
# $H^{-1} = U^\top U$:
#
# $$ e_k = \frac{w_k - q_k}{U_{kk}}, \qquad w_j \leftarrow w_j - e_k\, U_{kj} \quad (j > k) $$
#
# **AWQ** scales inputs: $W x = (W \,\mathrm{diag}(s)) (x / s)$ with $s_k = \overline{|x_k|}^{\,\alpha}$, so that
# inputs with large activations get a finer
# grid. The division goes into the norm before.

# %%
import course
import torch

from litgpt_core.compression.gptq import gptq_matrix
from litgpt_core.compression.rounding import round_matrix

directory = course.model_directory()

# %% [markdown]
# ## One layer
#
# Correlated inputs are what GPTQ lives on: with independent ones of equal size it is rounding to nearest.

# %%
generator = torch.Generator().manual_seed(0)
weight = torch.randn(64, 128, generator=generator)
mixing = torch.randn(128, 128, generator=generator) / 128**0.5
x = torch.randn(2000, 128, generator=generator) @ mixing


def error(rounded: torch.Tensor, inputs: torch.Tensor) -> float:
    return float(((rounded - weight) @ inputs.T).norm() / (weight @ inputs.T).norm())


moment = x.T @ x / len(x)
print("rounding:", round(error(round_matrix(weight, bits=4).dense(), x), 4))
print("GPTQ:    ", round(error(gptq_matrix(weight, moment, bits=4).dense(), x), 4))
identity = gptq_matrix(weight, torch.eye(128), bits=4, clip="mse")
assert torch.equal(identity.codes, round_matrix(weight, bits=4, clip="mse").codes)

# %% [markdown]
# ## The model


# %%
def q(**more: object) -> dict[str, object]:
    return {"bits": 4, "head": None, **more}


recipes = {
    "round_absmax": [{"method": "round", **q(clip="absmax")}],
    "round_mse": [{"method": "round", **q()}],
    "gptq": [{"method": "gptq", **q()}],
    "awq": [{"method": "awq"}, {"method": "round", **q(clip="activations")}],
    "awq_gptq": [{"method": "awq"}, {"method": "gptq", **q()}],
}
report = course.compare(directory, recipes)
print(report.table())
deltas = {line.row.name: line.row.delta for line in report.lines}
assert min(deltas["gptq"], deltas["awq_gptq"]) < deltas["round_absmax"]

# %% [markdown]
# ## What fools people
#
# Calibration fits the weights to a text. Measured on that kind of text alone, a calibrated model looks better than it
# is; the table has two kinds,
# and calibration text that is measured again is refused.
#
# ## Try
#
# - `bits: 3`. - `damp` from 0.001 to 0.1. - Calibrate with one domain only and compare the columns.
