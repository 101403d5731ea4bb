# %% [markdown]
# # 2.01 How good is a model?
#
# Two models, one number each, and one number is smaller. Is that model better, or was it luck? This notebook measures
# a model in the unit that compares across tokenizers, builds questions whose chance level is known exactly, and gives
# every number an interval that takes into account that questions from one file resemble each other.

# %%
import math
from dataclasses import replace

import course
import matplotlib.pyplot as plt
import numpy as np
import torch

from litgpt_core import checkpoint
from litgpt_core.evaluate import GPTScorer, UniformScorer, score_texts
from litgpt_core.evaluate.coding import HEADER_BYTES, compress, decompress
from litgpt_core.evaluate.compare import compare_suites
from litgpt_core.evaluate.compressors import compressor_bits
from litgpt_core.evaluate.items import fit
from litgpt_core.evaluate.record import bits_estimate
from litgpt_core.evaluate.run_data import data_of
from litgpt_core.evaluate.statistics import clustered_mean
from litgpt_core.evaluate.suite_score import score_suite, values_of
from litgpt_core.evaluate.suites.catalogue import build
from litgpt_core.evaluate.suites.material import Material

directory = course.model_directory()
scorer = GPTScorer.from_directory(directory, name="trained")
data = data_of(directory)
assert data is not None, "the held-out text of the run was not found"
documents = data.documents[: 4 if course.QUICK else 20]
documents = [type(each)(each.source, each.name, each.text[:6000]) for each in documents]

# %% [markdown]
# ## Bits per byte
#
# $$ \text{bits per byte} = \frac{-\sum_t \log_2 p(x_t \mid x_{<t})}{\text{UTF-8 bytes of the text}} $$
#
# A loss per token cannot be compared between tokenizers, because a token is not a fixed amount of text; a byte is. The
# same number says how small the model could make the text, so ordinary compressors are a yardstick.

# %%
scores = score_texts(scorer, documents)
estimate = bits_estimate(scores)
print(f"model   {estimate.value:.3f} ± {estimate.half_width:.3f} bits per byte")
for model in data.ngrams:
    print(f"{model.name:7} {bits_estimate(score_texts(model, documents)).value:.3f}")
for name, bits in compressor_bits(documents).items():
    print(f"{name:7} {bits:.3f}")

# %% [markdown]
# It is not a metaphor: the probabilities drive an arithmetic coder, and the file that comes out has that size.

# %%
text = documents[0].text[:120].encode()
small = compress(scorer, text)
size = len(small.data) - HEADER_BYTES
print(f"{len(text)} bytes -> {size} bytes and a header; by the probabilities {small.model_bits / 8:.1f}")
assert decompress(scorer, small.data) == text

# %% [markdown]
# ## Questions with a known chance level
#
# A minimal pair is a held-out line and the same with one token changed so that it is wrong. Both sides have **equally
# many tokens**: otherwise the shorter one would win for being short. With that, a model that knows nothing scores
# exactly 1/2.

# %%
material = Material(documents=data.documents)
items = [
    # no more context than this model's window holds: a byte is a token here
    replace(item, context=str(item.context)[-scorer.block_size // 2 :])
    for item in build("python_pairs", material)
]
fitted = fit(items, scorer, of_a_kind=15 if course.QUICK else 100)
for item in fitted.items[:3]:
    print(
        item.kind, "|", repr(str(item.context)[-30:]), "->", " or ".join(repr(str(choice)) for choice in item.choices)
    )

ignorant = score_suite("python_pairs", fitted, UniformScorer(scorer.tokenizer))
trained = score_suite("python_pairs", fitted, scorer)
print(f"uniform model {ignorant.estimate().value:.3f}, trained model {trained.estimate().value:.3f}")
assert ignorant.estimate().value == 0.5

# %% [markdown]
# ## Bits beside accuracy
#
# Accuracy asks only which side is preferred. **Choice bits**, −log2 of the right side's share of the probability, also
# ask by how much: chance is 1 bit for a pair, 0 is perfect. They change smoothly while a model learns, so they tell
# two models apart with fewer questions.

# %%
kinds = trained.kinds
figure, axes = plt.subplots(figsize=(6, 2.6), layout="constrained")
axes.bar(kinds, [trained.estimate("accuracy", kind=kind).value for kind in kinds], color="#2563eb")
axes.axhline(0.5, color="black", linewidth=0.8, linestyle="--")
axes.set(ylabel="accuracy", ylim=(0, 1))
for measure, chance in (("accuracy", trained.chance), ("choice_bits", trained.chance_bits)):
    one = trained.estimate(measure)
    print(f"{measure:11} {one.value:.3f} ± {one.half_width:.3f}, chance {chance:.3f}")

# %% [markdown]
# ## What fools people: items are not independent
#
# Questions from one file share its style and its names. Treated as independent, n items give an interval that is too
# narrow. The clustered standard error takes each *file* as one observation.

# %%
values = values_of(trained.scores, "accuracy")
naive = clustered_mean(values, [str(number) for number in range(len(values))])
honest = trained.estimate()
print(f"{naive.n} items as if independent: ± {naive.half_width:.3f}")
print(f"in {honest.clusters} files: ± {honest.half_width:.3f}")

copies = clustered_mean(np.tile(values, 4), [one.cluster for one in trained.scores] * 4)
assert math.isclose(copies.se, honest.se, rel_tol=1e-9)  # four copies of each item add no information

# %% [markdown]
# ## Two models
#
# Compare item by item: what makes an item hard for both cancels. Here, the trained model, and the same with a little
# noise on its weights. The sentence says aloud where the data cannot tell, and how many more items would.


# %%
def noisy(amount: float) -> GPTScorer:
    """The trained model with noise of a share of each matrix's own spread."""
    torch.manual_seed(0)
    changed = checkpoint.load_model(directory).float()
    with torch.no_grad():
        for parameter in changed.parameters():
            if parameter.dim() > 1:
                parameter.add_(torch.randn_like(parameter) * parameter.std() * amount)
    return GPTScorer(changed, scorer.tokenizer, name=f"{amount:.0%} noise")


for amount in (0.02, 0.5):
    other = noisy(amount)
    difference = compare_suites(trained, score_suite("python_pairs", fitted, other), names=("trained", other.name))
    assert difference is not None
    print(difference.sentence)

# %% [markdown]
# ## Try
#
# - Compare by `measure="choice_bits"`: does a smaller amount of noise become distinguishable?
# - `build("english_pairs", material)` makes pairs from the comments and docstrings. Which kinds has this model learnt?
# - `lcp evaluate runs/a runs/b --out report.html` does this for two runs, with tables and a picture.
