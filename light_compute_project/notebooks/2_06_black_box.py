# %% [markdown]
# # 2.06 Black-box distillation
#
# Sometimes only a teacher's *text* can be had. The engine writes continuations of many prompts at once, and a student
# is trained on them as on any text: sequence-level distillation (Kim & Rush 2016). Compare with the same student
# trained on human text, and with one that sees the teacher's probabilities (2.07).

# %%
import time

import course
import torch

from litgpt_core import checkpoint, tokenizers
from litgpt_core.compression.healing import distill
from litgpt_core.compression.quality import SourceModel
from litgpt_core.compression.state import WorkingModel
from litgpt_core.compression.structured import remove_blocks
from litgpt_core.compression.texts import Domain, calibration_windows, measurement_windows
from litgpt_core.compression.training_settings import Distill
from litgpt_core.generation import Engine, SamplingSettings

directory = course.real_model()
teacher, tokenizer = checkpoint.load_model(directory).float(), tokenizers.load(directory)
domains = course.texts(directory)
length = min(256, teacher.config.block_size)

# %% [markdown]
# ## The teacher writes
#
# Prompts are beginnings of calibration text; 32 sequences at once read the weights once per step for all of them.

# %%
n, prompt, new = (64, 16, length - 17) if course.QUICK else (200, 32, 192)
generator = torch.Generator().manual_seed(0)
streams = [domain.calibration for domain in domains]
prompts = []
for i in range(n):
    stream = streams[i % len(streams)]
    start = int(torch.randint(len(stream) - prompt, (1,), generator=generator))
    prompts.append(stream[start : start + prompt].tolist())
engine = Engine(teacher, tokenizer, packed_weights=True)
begin, written = time.perf_counter(), []
for at in range(0, n, 32):
    batch = prompts[at : at + 32]
    answers = engine.generate_batch(
        batch, max_new_tokens=new, sampling=SamplingSettings(temperature=0.7), seed=at, stop_ids=()
    )
    written += [[*first, *more] for first, more in zip(batch, answers, strict=True)]
seconds = time.perf_counter() - begin
print(f"{n} answers, {n * new:,} tokens in {seconds:.0f} s: {n * new / seconds:,.0f} tokens/s")
print(repr(tokenizer.decode(written[0])[:200]))
own = Domain("written by the teacher", torch.tensor([token for row in written for token in row]), torch.tensor([]))

# %% [markdown]
# ## A student with fewer blocks

# %%
windows = calibration_windows(domains, tokens=1024, length=length)
measured = SourceModel(
    teacher,
    {each.name: measurement_windows(each, tokens=course.REAL_TOKENS, length=length) for each in domains},
    tokenizer,
)


def student(*, loss: str, text: list[Domain]) -> dict[str, float]:
    work = WorkingModel(checkpoint.load_model(directory).float())
    with torch.no_grad():
        remove_blocks(work, windows, remove=max(1, teacher.config.n_layer // 5))
    if text:
        settings = Distill(steps=40 if course.QUICK else 100, batch=4, lr=1e-3 if course.QUICK else 2e-4, loss=loss)
        distill(work, settings, teacher=teacher, domains=text)
    with torch.no_grad():
        return {name: round(each.delta, 4) for name, each in measured.compare(work.model).items()}


found = {
    "cut": student(loss="ce", text=[]),
    "trained on human text": student(loss="ce", text=domains),
    "trained on the teacher's text": student(loss="ce", text=[own]),
    "trained on the teacher's probabilities": student(loss="forward", text=domains),
}
for name, deltas in found.items():
    print(f"{name:40} {deltas}")
assert sum(found["trained on the teacher's text"].values()) < sum(found["cut"].values())

# %% [markdown]
# ## What fools people
#
# - Samples at a low temperature look good and are narrow: the student forgets what the teacher did not say.
# - The teacher's text is not the measured text. On a domain that the prompts did not cover, human text may win.
#
# ## Try
#
# - `temperature=1.0`. - Four times as many answers.
