# %% [markdown]
# # 2.03 The KV cache of a real model
#
# Grouped heads already divide the cache by $n_{head} / G$. Rounding halves it again. What does it cost at longer
# contexts, where keys of many tokens compete?

# %%
import time

import course

from litgpt_core import checkpoint, tokenizers
from litgpt_core.compression.kv_cache import bytes_per_token, rounded_cache
from litgpt_core.compression.quality import SourceModel
from litgpt_core.compression.texts import measurement_windows
from litgpt_core.generation import Engine, SamplingSettings

directory = course.real_model()
model, tokenizer = checkpoint.load_model(directory).float(), tokenizers.load(directory)
c = model.config
for bits, keys in ((16, "token"), (8, "token"), (4, "channel")):
    size = bytes_per_token(c, bits=bits, keys=keys)
    print(f"{bits} bits: {size:,.0f} bytes per token, {size * 32 * c.block_size / 1e6:,.0f} MB for 32 full contexts")

# %%
contexts = [c.block_size // 2, c.block_size] if course.QUICK else [512, 2048]
for length in contexts:
    windows = {
        domain.name: measurement_windows(domain, tokens=max(course.REAL_TOKENS, 2 * length), length=length)
        for domain in course.texts(directory)
    }
    measured = SourceModel(checkpoint.load_model(directory).float(), windows, tokenizer)
    for bits, keys in ((8, "token"), (4, "token"), (4, "channel")):
        with rounded_cache(model, bits=bits, keys=keys):
            quality = measured.compare(model)
        deltas = ", ".join(f"{name} {each.delta:+.4f}" for name, each in quality.items())
        kl = sum(each.kl for each in quality.values()) / len(quality)
        print(f"context {length:5}, {bits} bits, keys per {keys:8}  {deltas}  KL {kl:.5f}")
        assert bits != 8 or kl < 0.01

# %% [markdown]
# ## Speed
#
# Attention reads the whole cache for every token. On a CPU, 8 bits are converted where they are multiplied.

# %%
prompt = course.texts(directory)[0].measurement[: c.block_size - 40].tolist()[:2000]
greedy, tokens = SamplingSettings(temperature=0), {}
for kind in ("auto", "int8"):
    engine = Engine(model, tokenizer, kv_cache=kind)
    engine.generate(prompt, max_new_tokens=2, sampling=greedy, stop_ids=())
    begin = time.perf_counter()
    tokens[kind] = engine.generate(prompt, max_new_tokens=32, sampling=greedy, stop_ids=())
    print(f"{kind}: {engine.stats.summary()}")
same = sum(a == b for a, b in zip(*tokens.values(), strict=True))
print(f"{same} of 32 greedy tokens after {len(prompt):,} tokens of context are the same")

# %% [markdown]
# ## Try
#
# - `lcp serve DIR --kv_cache int8`: how many more slots fit? The server says it in its log.
