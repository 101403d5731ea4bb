"""The examples in the docstrings of the Python API run."""

import doctest

import pytest

from litgpt_core.generation import beam_search, contrastive_search, engine
from litgpt_core.generation.engine import Engine
from litgpt_core.generation.request import GenerationRequest
from litgpt_core.generation.sampling_settings import SamplingSettings

MODULES = {"engine": engine, "beam_search": beam_search, "contrastive_search": contrastive_search}
EXAMPLES = [
    (module, case) for module in MODULES.values() for case in doctest.DocTestFinder().find(module) if case.examples
]


@pytest.mark.parametrize(("module", "case"), EXAMPLES, ids=[case.name for _, case in EXAMPLES])
def test_docstring_example(build, tokenizer, module, case):
    names = {"engine": Engine(build(), tokenizer), "SamplingSettings": SamplingSettings}
    case.globs = {**vars(module), **names, "GenerationRequest": GenerationRequest}
    outcome = doctest.DocTestRunner(verbose=False).run(case)
    assert outcome.attempted == len(case.examples) and outcome.failed == 0


def test_every_way_to_generate_has_an_example():
    shown = {case.name.rpartition(".")[2] for _, case in EXAMPLES}
    assert {"generate", "generate_stream", "generate_text", "generate_text_stream", "stream"} <= shown
