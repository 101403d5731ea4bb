"""The folder of an ONNX export in onnxruntime-genai and in transformers.js: the same greedy tokens as torch.

Neither is among this repository's packages; the tests run where Python finds `onnxruntime_genai`, and where node finds
`@huggingface/transformers` (`NODE_PATH=FOLDER/node_modules` after `npm install` there).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from litgpt_core import tokenizers
from litgpt_core.checkpoint import load_model, save_directory
from litgpt_core.export.parity import SAMPLE
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import initialize

PROMPT, NEW = [5, 6, 7, 8], 16
TRANSFORMERS_JS = """
const { AutoModelForCausalLM, env, Tensor } = require("@huggingface/transformers");
const [folder, ids, most] = JSON.parse(process.argv[1]);
env.allowRemoteModels = false;
env.localModelPath = require("node:path").dirname(folder) + "/";
(async () => {
  const model = await AutoModelForCausalLM.from_pretrained(require("node:path").basename(folder), { dtype: "fp32" });
  const wide = (values) => new Tensor("int64", BigInt64Array.from(values.map(BigInt)), [1, values.length]);
  const given = { input_ids: wide(ids), attention_mask: wide(ids.map(() => 1)) };
  const found = await model.generate({ ...given, max_new_tokens: most, min_new_tokens: most, do_sample: false });
  console.log(JSON.stringify(Array.from(found.data, Number).slice(ids.length)));
})();
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    """The folder of a small Qwen 3, and what torch writes after `PROMPT`."""
    pytest.importorskip("onnx")
    from litgpt_core.export.onnx.exporting import export_onnx

    root = tmp_path_factory.mktemp("onnx")
    (root / "tokenizer").mkdir()
    trained = tokenizers.train(tokenizers.SubwordSettings(kind="bpe", vocab_size=300), [SAMPLE * 3])
    trained.save(root / "tokenizer")
    model = GPT(
        GPTConfig(
            name="qwen3-small", block_size=64, n_layer=2, n_head=4, n_query_groups=2, n_embd=64, intermediate_size=96,
            vocab_size=300, padding_multiple=64, norm_class_name="RMSNorm", norm_qk=True, bias=False,
            parallel_residual=False, rotary_percentage=1.0, mlp_class_name="LLaMAMLP", tie_embeddings=True,
        )
    )  # fmt: skip
    initialize(model, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(4)) * 0.1)
    directory = save_directory(
        root / "model", weights=model.state_dict(), config=model.config, tokenizer_dir=root / "tokenizer",
        hyperparameters={},
    )  # fmt: skip
    ids, again = list(PROMPT), load_model(directory)
    with torch.no_grad():
        for _ in range(NEW):
            ids.append(int(again(torch.tensor([ids]))[0, -1, 1:300].argmax()) + 1)  # not the end of the text
    return export_onnx(directory, root / "exported", check=False).path, ids[len(PROMPT) :]


def test_onnxruntime_genai_runs_the_folder(request: pytest.FixtureRequest) -> None:
    genai: Any = pytest.importorskip("onnxruntime_genai")
    folder, expected = request.getfixturevalue("exported")
    model = genai.Model(str(folder))
    settings = genai.GeneratorParams(model)
    settings.set_search_options(max_length=len(PROMPT) + NEW, min_length=len(PROMPT) + NEW, do_sample=False)
    generator = genai.Generator(model, settings)
    generator.append_tokens(PROMPT)
    found = []
    for _ in range(NEW):
        generator.generate_next_token()
        found.append(int(generator.get_next_tokens()[0]))
    assert found == expected


def test_transformers_js_runs_the_folder(request: pytest.FixtureRequest) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    asked = [node, "-e", 'require.resolve("@huggingface/transformers")']
    if subprocess.run(asked, capture_output=True, check=False).returncode:
        pytest.skip("node finds no @huggingface/transformers")
    folder, expected = request.getfixturevalue("exported")
    job = json.dumps([str(folder), PROMPT, NEW])
    done = subprocess.run(
        [node, "-e", TRANSFORMERS_JS, job], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert json.loads(done.stdout.strip().splitlines()[-1]) == expected
