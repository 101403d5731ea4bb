"""A model as one Python file that generates without any package: `litgpt_core.pure` with the weights below it.

    MODULES   the source of every module that python_main needs, found by their imports
    FILES     the checkpoint directory: weights, config, tokenizer, in base 85

An importer at the end of the file serves the modules from MODULES. The file runs on Python 3.11 and later, also with
`python -I -S`, and prints the text that the engine prints in float32 for the same seed.
"""

from __future__ import annotations

import ast
import base64
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import litgpt_core
from litgpt_core.checkpoint.layout import WEIGHTS
from litgpt_core.export.parity import Parity, compare_logits, logits_of, sample_ids
from litgpt_core.export.single.arrays import ExportedFile
from litgpt_core.export.single.checkpoint import Parts
from litgpt_core.export.writing import export_file, refuse_used
from litgpt_core.pure import gpt as pure_gpt
from litgpt_core.pure.vocabulary import read_vocabulary

_ROOT = Path(litgpt_core.__file__).parent
_MAIN = "litgpt_core.export.single.python_main"
_HEAD = '''"""A language model in one file, for Python 3.11 and later, without any package.

    python {name} "Once upon a time" --max_new_tokens 100 --seed 1
"""

import sys
from importlib.machinery import ModuleSpec

'''
_TAIL = '''

class Importer:
    """Serves the modules of this file."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in MODULES:
            package = any(other.startswith(name + ".") for other in MODULES)
            return ModuleSpec(name, Importer, is_package=package)

    @staticmethod
    def create_module(spec):
        return None

    @staticmethod
    def exec_module(module):
        exec(compile(MODULES[module.__name__], f"<{module.__name__}>", "exec"), module.__dict__)


if __name__ == "__main__":
    sys.meta_path.insert(0, Importer)
    from litgpt_core.export.single.python_main import main

    sys.exit(main(FILES))
'''
_PROMPT, _NEW = "The ", 24


def export_python(
    checkpoint: str | Path | None, target: Path, *, force: bool = False, check: bool = True
) -> ExportedFile:
    """Write a checkpoint as one Python file.

    Args:
        checkpoint: A name or path as for `litgpt_core.checkpoint.choose`; its tokenizer is one of this project's.
        target: The file to create.
        force: Replace a `target` of the same kind.
        check: Run the file, and compare its logits and its text with torch's.

    Raises:
        CheckpointError: The checkpoint cannot be read or is too large, or `target` exists or cannot be written.
        TokenizerError: The tokenizer needs a library.
    """
    target, parts = Path(target), Parts.read(checkpoint)
    refuse_used(target, source=parts.directory, force=force, contains=b"A language model in one file")
    read_vocabulary(parts.directory)
    pure = pure_gpt.GPT.from_directory(parts.directory)
    files = {**parts.files(), WEIGHTS: (parts.directory / WEIGHTS).read_bytes()}
    source = _source(target.name, files)
    parity = export_file(
        target,
        lambda path: path.write_text(source, encoding="utf-8"),
        check=(lambda path: _compare(parts, pure, path)) if check else None,
        n_bytes=len(source),
    )
    return ExportedFile(path=target, n_bytes=target.stat().st_size, parameters=parts.parameters(), parity=parity)


def _source(name: str, files: dict[str, bytes]) -> str:
    modules = "".join(f"    {module!r}: r'''{source}''',\n" for module, source in sorted(modules_of(_MAIN).items()))
    packed = "".join(
        f"    {file!r}: r'''\n" + _lines(base64.b85encode(data).decode("ascii")) + "\n''',\n"
        for file, data in files.items()
    )
    head = _HEAD.replace("{name}", name)
    return head + "MODULES = {\n" + modules + "}\n\nFILES = {\n" + packed + "}\n" + _TAIL


def _lines(text: str, *, width: int = 98) -> str:
    return "\n".join(text[at : at + width] for at in range(0, len(text), width))


def modules_of(name: str) -> dict[str, str]:
    """Sources of a module and of all modules of this project that it imports; packages are empty."""
    found: dict[str, str] = {}
    waiting = [name]
    while waiting:
        module = waiting.pop()
        if module in found:
            continue
        file = _ROOT.joinpath(*module.split(".")[1:]).with_suffix(".py")
        source = file.read_text(encoding="utf-8") if file.is_file() else ""
        assert "'''" not in source, f"{file} cannot stand between three apostrophes"
        found[module] = source
        waiting += [module.rpartition(".")[0]] if "." in module else []
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("litgpt_core"):
                waiting.append(str(node.module))
    return found


def _compare(parts: Parts, pure: Any, file: Path) -> Parity:
    """The logits of the pure model against torch's, and the text that the file prints against the engine's."""
    import torch

    from litgpt_core.generation.engine import Engine
    from litgpt_core.generation.sampling import SamplingSettings

    rows = min(parts.tokenizer.vocab_size, parts.model.config.padded_vocab_size)
    ids, n_bytes = sample_ids(parts.tokenizer, longest=min(64, parts.model.config.block_size))
    pure.clear()
    own = torch.tensor([pure.logits([token])[:rows] for token in ids])
    found = compare_logits(logits_of(parts.model.float(), ids, rows=rows), own, ids, n_bytes=n_bytes)
    engine = Engine.from_directory(parts.directory, device="cpu", dtype="32", compile="false")
    prompt = _PROMPT if _encodes(parts, _PROMPT) else ""
    sampling = SamplingSettings(temperature=0.8, top_k=50)
    text = prompt + engine.generate_text(prompt, max_new_tokens=_NEW, sampling=sampling, seed=1)
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(file.resolve()), prompt, "--max_new_tokens", str(_NEW), "--seed", "1"],
            capture_output=True,
            cwd=empty,
            timeout=600,
            check=False,
        )
    printed = done.stdout.decode("utf-8", errors="replace").replace("\r\n", "\n").removesuffix("\n")
    equal = printed == text
    failures = (
        [] if equal else [f"it prints {printed[-80:]!r} {done.stderr.decode()[-200:]}, the engine {text[-80:]!r}"]
    )
    failures += ["the logits differ"] if found["kl"] > 1e-6 else []
    version = ".".join(map(str, sys.version_info[:2]))
    return Parity(
        format="python",
        reader=f"python {version} -I -S",
        tokens=_NEW,
        greedy_equal=_NEW if equal else 0,
        failures=tuple(failures),
        **found,
    )


def _encodes(parts: Parts, text: str) -> bool:
    from litgpt_core.core.errors import TokenizerError

    try:
        return bool(parts.tokenizer.encode(text))
    except TokenizerError:
        return False
