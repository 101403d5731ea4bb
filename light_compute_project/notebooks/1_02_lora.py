# %% [markdown]
# # 1.02 LoRA, and LoRA over integers
#
# Fine-tuning changes a weight matrix $W$ by $\Delta W$. LoRA writes the change as two thin matrices and trains only
# them:
#
# $$ y = W x + \tfrac{\alpha}{r} B A x, \qquad A: (r, K), \; B: (O, r) $$
#
# $W$ is never changed, so it may as well be stored in 4 bits: that is QLoRA. What is saved is memory while training:
# no gradients and no optimizer state for $W$, and $W$ itself in a quarter of the bytes.

# %%
import course
import torch

from litgpt_core import checkpoint
from litgpt_core.checkpoint.load import build_compressed
from litgpt_core.compression.quality import log_probabilities
from litgpt_core.compression.texts import measurement_windows
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.lora import adapters, add_adapters, without_adapters
from litgpt_core.model.optional_settings import LoRASettings

directory = course.model_directory()
english, _ = [domain for domain in course.texts(directory) if domain.name == "reference"], None
domain = english[0] if english else course.texts(directory)[-1]
print("the model was trained on Python sources; it now learns:", domain.name)


# %% [markdown]
# ## Ten lines of training
#
# Only `adapters(model)` need gradients.


# %%
def loss_on(model: GPT, rows: torch.Tensor) -> float:
    with torch.no_grad():
        parts = [-log_probabilities(model, row).gather(1, row[1:, None]).mean() for row in rows]
    return float(torch.stack(parts).mean())


def tune(model: GPT, *, r: int, steps: int) -> float:
    """Trains adapters in place; loss on text that was not trained on."""
    add_adapters(model, LoRASettings(r=r, alpha=2 * r, dropout=0.0), seed=1)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3, weight_decay=0.0)
    length, generator = model.config.block_size, torch.Generator().manual_seed(0)
    for _ in range(steps):
        starts = torch.randint(len(domain.calibration) - length - 1, (8,), generator=generator).tolist()
        rows = torch.stack([domain.calibration[start : start + length + 1] for start in starts])
        logits = model(rows[:, :-1]).flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(logits, rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss_on(model, held_out)


steps = 30 if course.QUICK else 150
base = checkpoint.load_model(directory).float()
held_out = measurement_windows(domain, tokens=2048, length=base.config.block_size)
print("before:", round(before := loss_on(base, held_out), 4), "nats per token")

# %%
found = {}
for r in (1, 4, 16):
    model = checkpoint.load_model(directory).float()
    found[r] = tune(model, r=r, steps=steps)
    trained = sum(value.numel() for value in adapters(model).values())
    print(f"rank {r}: {trained:,} of {base.num_parameters():,} numbers trained, loss {found[r]:.4f}")
assert min(found.values()) < before

# %% [markdown]
# ## Merged, the model is an ordinary one again

# %%
with torch.no_grad():
    gap = (without_adapters(model)(held_out[:1, :-1]) - model(held_out[:1, :-1])).abs().max()
print("largest difference of a logit after merging:", f"{float(gap):.1e}")
assert gap < 1e-3

# %% [markdown]
# ## Over an int4 base

# %%
course.compare(directory, {"int4": "int4"})
packed_directory = course.FOLDER / "made" / f"{directory.parent.name}-{directory.name}" / "int4"
packed = build_compressed(packed_directory, GPTConfig.from_checkpoint(packed_directory)).float()
rounded = loss_on(packed, held_out)
tuned = tune(packed, r=16, steps=steps)
stored = sum(buffer.nbytes for name, buffer in packed.named_buffers() if "matrix" in name)
print(f"int4 base: {stored:,} bytes instead of {4 * base.num_parameters():,}; loss {rounded:.4f} -> {tuned:.4f}")
assert tuned < rounded

# %% [markdown]
# ## What fools people
#
# - "0.5 % of the parameters are trained": the forward pass and most of the backward pass still cost what they did.
# - Merging adapters of an int4 base gives float weights. Rounding those again adds a second error.
#
# ## Try
#
# - `lcp train +experiment=finetune_chat init_from=runs/NAME-int4 lora=default`: the same with a chat log, resumable.
