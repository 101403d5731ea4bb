# %% [markdown]
# # 2.07 White-box distillation
#
# Every token of text is one number to learn from; the teacher's distribution is a whole vocabulary of them. This
# notebook trains students with `lcp train`, the real training path: resumable, with any data and optimizer,
#
# $$ \mathcal L = w \, T^2 \, D(p_T \,\|\, q_T) + (1 - w) \cdot \text{cross entropy} $$
#
# where $T$ is the temperature and $D$ forward KL, reverse KL or Jensen-Shannon.

# %%
import json

import course

from litgpt_core import checkpoint
from litgpt_core.model.config import GPTConfig

directory = course.real_model()
c = GPTConfig.from_checkpoint(directory)
steps = 40 if course.QUICK else 120
context = min(128, c.block_size)
common = [
    "tokenizer=pretrained",
    f"tokenizer.path={directory}",
    "data=small_source" if course.QUICK else "data=python_source",
    f"trainer.max_steps={steps}",
    f"trainer.eval_interval={steps}",
    f"trainer.save_interval={steps}",
    "trainer.eval_tokens=8192",
    "trainer.global_batch_size=8",
    "trainer.sample_tokens=0",
    "logger=none",
    f"run.dir={course.FOLDER}",
]
half = [
    "model=llama_gqa",
    f"model.n_layer={max(1, c.n_layer // 2 if course.QUICK else 4)}",
    f"model.n_embd={c.n_embd // 2}",
    f"model.n_head={c.n_head if c.n_embd // 2 % c.n_head == 0 else 4}",
    f"model.n_query_groups={c.n_head if c.n_embd // 2 % c.n_head == 0 else 4}",
    f"model.intermediate_size={c.intermediate_size // 2 // 32 * 32}",
    f"model.block_size={context}",
    "model.tie_embeddings=true",
]


def student(name: str, *more: str) -> float:
    """Bits per byte on the whole validation split after training from scratch."""
    run = course.FOLDER / f"student-{name}-{steps}"
    if not (run / "summary.json").is_file():
        course.lcp("train", *common, *half, f"run.name={run.name}", *more)
    return float(json.loads((run / "summary.json").read_text())["whole_split"]["val_bpb"])


# %% [markdown]
# ## The same size, the same tokens, with and without a teacher

# %%
found = {"text alone": student("text")}
teacher = ["distill=default", f"teacher={directory}"]
for loss in ("forward",) if course.QUICK else ("forward", "reverse", "jsd"):
    found[loss] = student(loss, *teacher, f"distill.loss={loss}")
found["forward, nothing but the teacher"] = student("only", *teacher, "distill.weight=1.0")
for name, bits in found.items():
    print(f"{name:36} {bits:.4f} bits per byte  {bits - found['text alone']:+.4f}")
print(
    "a model of", f"{checkpoint.load_model(course.FOLDER / f'student-text-{steps}').num_parameters():,}", "parameters"
)
assert min(found.values()) <= found["text alone"]

# %% [markdown]
# ## What fools people
#
# - Equal steps are not equal time: the teacher's forward pass costs more than the student's own. The table is at equal
#   tokens; look at the runs' `summary.json` for seconds.
# - A teacher that has seen the validation text.
#
# ## Try
#
# - `distill.temperature=2`. - `lcp train +experiment=distill teacher=runs/baseline`: half of the baseline, in minutes.
