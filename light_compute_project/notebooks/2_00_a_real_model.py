# %% [markdown]
# # 2.00 A real model
#
# Stage 2 is about a model that others trained for months: SmolLM2-135M-Instruct, a Llama with 30 blocks and 9 query
# heads over 3 key/value heads. `COURSE_MODEL=DIR` takes any Llama 3 instead. (`COURSE_QUICK=1`, as continuous
# integration runs it, trains a small model of the same architecture on the spot.)

# %%
import course
import torch

from litgpt_core import checkpoint, tokenizers
from litgpt_core.compression.gridded_source import gridded_share
from litgpt_core.compression.kv_cache import bytes_per_token
from litgpt_core.generation import Engine, SamplingSettings
from litgpt_core.model.cost import count_parameters

directory = course.real_model()
model = checkpoint.load_model(directory).float()
c = model.config
print(f"{c.name}: {count_parameters(c):,} parameters, {c.n_layer} blocks, width {c.n_embd}")
print(f"{c.n_head} query heads, {c.n_query_groups} key/value heads, MLP {c.intermediate_size}, {c.block_size} tokens")
print(f"KV cache: {bytes_per_token(c, bits=16):,.0f} bytes per token of context in bf16")

# %% [markdown]
# ## Where the bytes are

# %%
head = c.padded_vocab_size * c.n_embd
parts = {"embedding and head": head, "attention": 0, "MLP": 0, "norms": 0}
for name, value in model.transformer.h.named_parameters():
    kind = "attention" if ".attn." in name and value.dim() == 2 else "MLP" if ".mlp." in name else "norms"
    parts[kind] += value.numel()
for name, size in parts.items():
    print(f"{name:20} {size:12,}  {size / sum(parts.values()):.0%}")

# %% [markdown]
# ## A source that was quantized before
#
# The file of SmolLM2 that needs no account is a 4-bit one. Rounding such weights to 4 bits again changes nothing: a
# compression that is measured on it looks free. The library notices, and an exact permutation of channels, hidden
# units and value dimensions gives the same function with other neighbours in every group of 32.

# %%
print(f"groups of 32 weights with at most 16 different values, in the model of this course: {gridded_share(model):.0%}")
if not course.QUICK and directory.name == "smollm2-permuted":
    original = checkpoint.load_model(course.downloaded_model()).float()
    ids = torch.randint(1000, (1, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        gap = (original(ids).log_softmax(-1) - model(ids).log_softmax(-1)).abs().max()
    print(f"as downloaded: {gridded_share(original):.0%}; largest difference of a log-probability: {float(gap):.2g}")
    assert gridded_share(original) > 0.9 and gap < 0.2
assert gridded_share(model) < 0.5

# %% [markdown]
# ## It talks

# %%
engine = Engine(model, tokenizers.load(directory))
prompt = "The capital of France is" if engine.vocab_size > 1000 else "import "
print(prompt + engine.generate_text(prompt, max_new_tokens=30, sampling=SamplingSettings(temperature=0)))
course.what_llamas_would_take(count_parameters(c), 0.0)

# %% [markdown]
# ## Try
#
# - `lcp chat` on the directory. - `lcp analyze`: what is in its heads.
