# %% [markdown]
# # 2.01 Weights alone
#
# Activations stay exact here, so this is about the weights: which bits, which scales, and what calibration adds.
#
# - rounding to nearest with searched scales,
# - scales searched with the squared activations as weights (llama.cpp's importance matrix),
# - GPTQ: later columns make up for the error of earlier ones,
# - AWQ: channels with large activations are scaled up before rounding, and the layer before is divided.

# %%
import time

import course

from litgpt_core.model.config import GPTConfig
from litgpt_core.model.cost import count_parameters

directory = course.real_model()
methods: dict[str, list[dict[str, object]] | str] = {
    "int8": [{"method": "round", "bits": 8, "clip": "absmax", "head": None}],
    "int4 nearest": [{"method": "round", "bits": 4, "head": None}],
    "int4 importance": [{"method": "round", "bits": 4, "clip": "activations", "head": None}],
    "int4 gptq": [{"method": "gptq", "bits": 4, "head": None}],
    "int4 awq": [{"method": "awq"}, {"method": "round", "bits": 4, "clip": "activations", "head": None}],
    "int4 awq+gptq": [{"method": "awq"}, {"method": "gptq", "bits": 4, "head": None}],
    "int3 nearest": [{"method": "round", "bits": 3, "head": None}],
    "int3 awq+gptq": [{"method": "awq"}, {"method": "gptq", "bits": 3, "head": None}],
}
begin = time.perf_counter()
report = course.compare(directory, methods, tokens=course.REAL_TOKENS)
seconds = (time.perf_counter() - begin) / len(methods)
print(report.table())

# %%
lost = {line.row.name: line.row for line in report.lines}
best = min((name for name in lost if name.startswith("int4")), key=lambda name: lost[name].kl)
print("the best of 4 bits here:", best)
for name in ("int4 awq+gptq", "int3 awq+gptq"):
    nearest = name.partition(" ")[0] + " nearest"
    print(f"{name}: KL {lost[name].kl:.4f}, {lost[name].kl / lost[nearest].kl:.2f} of {nearest}'s")
assert lost["int8"].kl < lost[best].kl < lost["int3 nearest"].kl

# %% [markdown]
# ## The head alone
#
# Embedding and head are one matrix here, a fifth of a small model. What do 8 and 4 bits of it cost?

# %%
heads = {
    f"head int{bits}": [{"method": "round", "bits": bits, "clip": "mse", "head": bits, "skip": ["attn", "mlp"]}]
    for bits in (8, 4)
}
print(course.compare(directory, dict(heads), tokens=course.REAL_TOKENS).table())
course.what_llamas_would_take(count_parameters(GPTConfig.from_checkpoint(directory)), seconds)

# %% [markdown]
# ## What fools people
#
# - Calibrating and measuring on the same kind of text. The table has two kinds; a method may win on one and lose on the
#   other.
# - Perplexity of a large model: 70 billion parameters hide what 135 million show.
#
# ## Try
#
# - `calibration_tokens`: 1,000 against 16,000. - The other domain only.
