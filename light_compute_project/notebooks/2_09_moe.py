# %% [markdown]
# # 2.09 A mixture of experts
#
# A router sends every token to a few of many MLPs. Most of the bytes are experts that are idle for a given token, so
# their number of bits matters more than their number of operations; and experts that nobody uses can be merged.

# %%
import course
import matplotlib.pyplot as plt
import torch

from litgpt_core import checkpoint
from litgpt_core.compression.experts import expert_use, grouped_experts
from litgpt_core.compression.texts import calibration_windows

steps = 80 if course.QUICK else 1000
run = course.FOLDER / f"moe-{steps}"
shape = ["model=llama_gqa", "model.n_layer=2", "model.n_head=4", "model.n_embd=64", "model.block_size=128"]
shape += ["model.mlp_class_name=LLaMAMoE", "model.n_expert=8", "model.n_expert_per_token=2"]
shape += ["model.intermediate_size=64", "model.tie_embeddings=true"]
if not (run / "final").is_dir():
    settings = [
        f"trainer.max_steps={steps}",
        "trainer.sample_tokens=0",
        f"run.dir={course.FOLDER}",
        f"run.name={run.name}",
    ]
    course.lcp("train", "+experiment=smoke", *shape, *settings)
directory = checkpoint.resolve(run)
model = checkpoint.load_model(directory).float()
experts = sum(p.numel() for name, p in model.named_parameters() if ".experts." in name)
print(f"{model.num_parameters():,} parameters, {experts:,} of them in experts; a token uses 2 of 8")

# %% [markdown]
# ## Who is used

# %%
windows = calibration_windows(course.texts(directory), tokens=4096, length=128)
with torch.no_grad():
    use = expert_use(model, windows)
figure, axes = plt.subplots(figsize=(6, 2.5), layout="constrained")
for layer, found in use.items():
    share = found.counts / found.counts.sum()
    print(f"block {layer}:", " ".join(f"{value:.0%}" for value in share.tolist()))
    axes.plot(share, marker="o", label=f"block {layer}")
axes.set(xlabel="expert", ylabel="share of the choices")
axes.legend()
print("four groups in block 0:", grouped_experts(use[0], keep=4))

# %% [markdown]
# ## Fewer experts, smaller experts

# %%
heal: dict[str, object] = {"method": "distill", "steps": 40 if course.QUICK else 200, "batch": 8, "lr": 1e-3}
recipes: dict[str, list[dict[str, object]] | str] = {
    "6 of 8": [{"method": "experts", "keep": 6}],
    "4 of 8": [{"method": "experts", "keep": 4}],
    "4 of 8, healed": [{"method": "experts", "keep": 4}, heal],
    "int8": "int8",
    "int4": "int4",
    "4 of 8, healed, int4": [{"method": "experts", "keep": 4}, heal, {"method": "round", "bits": 4}],
}
report = course.compare(directory, recipes)
print(report.table())
rows = {line.row.name: line.row for line in report.lines}
assert rows["4 of 8, healed"].kl < rows["4 of 8"].kl and rows["int4"].file_bytes < rows["4 of 8"].file_bytes

# %% [markdown]
# ## What fools people
#
# - "Active parameters": memory holds all of them.
# - Averaging experts that learnt different things. Hidden units have no order, so they are matched before they are
#   averaged; even so, healing does most of the work.
# - The CPU kernel does not decode mixtures; PyTorch does, and int4 is then smaller, not faster.
