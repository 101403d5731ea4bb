# %% [markdown]
# # 1.10 The KV cache
#
# Every token of context leaves a key and a value in every layer: with $L$ layers, $G$ groups of heads of size $h$ and
# $b$ bytes a number, $2 L G h b$ bytes. Long contexts and many users need more memory for it than for the weights.
#
# Rounded to 8 bits with one scale per token and head, it takes about half of bfloat16. For 4 bits and fewer, KIVI
# rounds keys per *channel* instead, because a few channels of keys are large for every token.

# %%
import course
import matplotlib.pyplot as plt

from litgpt_core import checkpoint, tokenizers
from litgpt_core.compression.kv_cache import bytes_per_token, rounded_cache
from litgpt_core.compression.quality import SourceModel
from litgpt_core.compression.texts import measurement_windows
from litgpt_core.generation import Engine, SamplingSettings

directory = course.model_directory()
model = checkpoint.load_model(directory).float()
config = model.config
print({bits: bytes_per_token(config, bits=bits) for bits in (16, 8, 4)}, "bytes per token of context")
print(f"the weights in bf16 equal {2 * model.num_parameters() / bytes_per_token(config, bits=16):,.0f} tokens of cache")

# %% [markdown]
# ## What rounding costs

# %%
windows = {
    domain.name: measurement_windows(domain, tokens=course.TOKENS, length=config.block_size)
    for domain in course.texts(directory)
}
measured = SourceModel(checkpoint.load_model(directory).float(), windows, tokenizers.load(directory))
kl = {}
for bits in (8, 4, 3, 2):
    for keys in ("token", "channel"):
        with rounded_cache(model, bits=bits, keys=keys):
            quality = measured.compare(model)
        kl[bits, keys] = sum(each.kl for each in quality.values()) / len(quality)
        deltas = ", ".join(f"{name} {each.delta:+.4f}" for name, each in quality.items())
        print(f"{bits} bits, keys per {keys:8}  {deltas}  KL {kl[bits, keys]:.5f}")
assert kl[8, "token"] < kl[4, "token"] < kl[2, "token"]

# %%
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
for keys in ("token", "channel"):
    axes.plot([8, 4, 3, 2], [kl[bits, keys] for bits in (8, 4, 3, 2)], marker="o", label=f"keys per {keys}")
axes.set(xlabel="bits", ylabel="KL from the model, nats", yscale="log")
axes.legend()

# %% [markdown]
# ## In the engine
#
# `lcp generate MODEL --kv_cache int8`, and `chat` and `serve` likewise.

# %%
greedy = SamplingSettings(temperature=0)
texts = {kind: Engine(model, tokenizers.load(directory), kv_cache=kind) for kind in ("auto", "int8")}
texts = {kind: engine.generate_text("def ", max_new_tokens=60, sampling=greedy) for kind, engine in texts.items()}
same = sum(a == b for a, b in zip(*texts.values(), strict=False))
print(f"{same} of {min(map(len, texts.values()))} characters are the same")
print(texts["int8"])

# %% [markdown]
# ## What fools people
#
# - One sequence with a short context: the cache is tiny there, and so is what it saves. Look at bytes per token of
#   *context* times users.
# - A cache that is smaller but read by slower code. Measure tokens per second at the context that you need.
#
# ## Try
#
# - A model whose keys were normalised (`model=baseline` has `norm_qk`): are its keys easier to round?
