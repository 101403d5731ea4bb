# %% [markdown]
# # 2.10 Ship it
#
# The model that a user gets: int4 with AWQ scales and GPTQ codes, measured with everything that was saved and lost,
# decoded by the engine, and as a GGUF file with the *same* codes for llama.cpp.

# %%
import course

from litgpt_core import checkpoint
from litgpt_core.compression.report_chart import draw
from litgpt_core.export.gguf import llama_cpp
from litgpt_core.export.gguf.exporting import export_gguf
from litgpt_core.generation import Engine, SamplingSettings

directory = course.real_model()
recipes = {"int8": "int8", "int4": "int4", "best_int4": "best_int4"}
report = course.compare(
    directory, dict(recipes), tokens=course.REAL_TOKENS, rounds=1 if course.QUICK else 5, kv_cache=True
)
print(report.table())
draw(report, course.FOLDER / "ship-it.png")

# %% [markdown]
# ## The engine

# %%
made = report.lines[-1].directory
engine = Engine.from_directory(made)
greedy = SamplingSettings(temperature=0)
prompt = engine.encode_prompt("The capital of France is" if engine.vocab_size > 1000 else "import ")
ours = engine.generate(prompt, max_new_tokens=64, sampling=greedy, stop_ids=())
print(engine.tokenizer.decode([*prompt, *ours]))

# %% [markdown]
# ## llama.cpp
#
# `lcp export DIR --format gguf` of a compressed directory rounds nothing again: int4 codes are `q4_0` blocks, int8
# codes `q8_0` blocks. llama.cpp rounds activations as our kernel does, so greedy texts are the same until two tokens
# are nearly equally likely.

# %%
exported = export_gguf(made, course.FOLDER / "ship-it.gguf", force=True, check=False)
print(f"{exported.path}: {exported.type}, {exported.n_bytes:,} bytes")
if llama_cpp.reader_name():
    answers = llama_cpp.ask(exported.path, texts=[], prompt=prompt, n_tokens=64, prefixes=[], special=False)
    equal = sum(a == b for a, b in zip(ours, answers.greedy, strict=True))
    print(f"{llama_cpp.reader_name()}: {equal} of 64 greedy tokens are the same")
    assert equal > 8
else:
    print(llama_cpp.INSTALL)
reread = checkpoint.load_model(made)
print(
    "kinds of layers:",
    sorted({type(module).__name__ for module in reread.modules() if "Quant" in type(module).__name__}),
)

# %% [markdown]
# ## What a page about a model should say
#
# File, memory, speed and *where* it was measured; bits per byte on two kinds of text with an interval; what it was
# calibrated with. `compression.json` in the directory has all of it.
