"""Every place in the package that removes, renames over, truncates or writes a file is known, with a reason.

A new place either asks `core/replaceable.py` in the same function, or gets a line here that says why nothing of
anybody else can be lost. A line whose place is gone is removed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src" / "litgpt_core"
ASKING = {"refuse_foreign", "refuse_foreign_file", "refuse_taken", "refuse_used"}
CALLS = {
    *("rmtree", "unlink", "rmdir", "removedirs", "rename", "renames", "move", "truncate", "write_text", "write_bytes"),
    *(
        "copyfile",
        "copy2",
        "copytree",
        "symlink_to",
        "symlink",
        "link",
        "hardlink_to",
        "tofile",
        "savefig",
        "save_file",
    ),
    *(
        "write_atomically",
        "write_json",
        "replacing",
        "extractall",
        "FileHandler",
        "RotatingFileHandler",
        "touch",
        "savez",
        "export_file",
    ),
}
"""Names of calls that write, whatever they are called on; `open`, `replace` and `remove` are looked at more closely.
`new_directory`, `put_in_place` and `remove_directory` are not among them: they ask themselves.
"""
READING = {"r", "rb", "rt"}


def places(root: Path = SOURCE) -> set[str]:
    """`package/file.py function` of every such call that does not ask first."""
    found = set()
    for file in sorted(root.rglob("*.py")):
        for name, function in _functions(ast.parse(file.read_text(encoding="utf-8"))):
            calls = [node for node in _own_nodes(function) if isinstance(node, ast.Call)]
            if any(_writes(call) for call in calls) and not any(_called(call) in ASKING for call in calls):
                found.add(f"{file.relative_to(root).as_posix()} {name}")
    return found


def _functions(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    yield "module", tree
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node


def _own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """Everything inside but other functions, which are looked at themselves."""
    for child in ast.iter_child_nodes(function):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
            yield from _own_nodes(child)


def _called(call: ast.Call) -> str:
    target = call.func
    return target.attr if isinstance(target, ast.Attribute) else target.id if isinstance(target, ast.Name) else ""


def _writes(call: ast.Call) -> bool:
    name = _called(call)
    if name in {"open", "fdopen", "ZipFile", "TarFile"}:
        return _opens_for_writing(call)
    if name == "replace":  # of a path: one argument; os.replace: two; str.replace: two; dataclasses.replace: keywords
        if ast.unparse(call.func) == "dataclasses.replace":
            return False
        os_call = isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) == "os"
        return os_call or (len(call.args) == 1 and not call.keywords)
    if name in {"remove", "link"}:
        return ast.unparse(call.func) in {"os.remove", "os.link"}
    if name == "save":
        return "torch" in ast.unparse(call.func) or "np." in ast.unparse(call.func)
    return name in CALLS


def _opens_for_writing(call: ast.Call) -> bool:
    text = ast.unparse(call)
    if text.startswith(("webbrowser.", "urllib.", "tarfile.open")):
        return False
    if text.startswith("os.open"):
        return "O_WRONLY" in text or "O_RDWR" in text
    values = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
    modes = [value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str)]
    modes = [mode for mode in modes if len(mode) <= 4 and set(mode) <= set("rwaxbt+")]
    return any(mode not in READING for mode in modes) or any(isinstance(value, ast.IfExp) for value in values)


def test_every_writing_place_asks_or_is_listed_with_a_reason() -> None:
    found = places()
    assert found - LISTED.keys() == set(), "ask core/replaceable.py there, or list the place with a reason"
    assert LISTED.keys() - found == set(), "these places are gone: remove their lines"


def test_the_scan_finds_each_kind_of_place(tmp_path: Path) -> None:
    def scanned(body: str) -> bool:
        (tmp_path / "a.py").write_text(f"def f():\n    {body}\n")
        return places(tmp_path) == {"a.py f"}

    for writing in (
        "shutil.rmtree(p)",
        "p.unlink()",
        "os.remove(p)",
        "os.replace(p, q)",
        "p.replace(q)",
        "p.rename(q)",
        "open(p, 'w')",
        "p.open('r+b' if p.exists() else 'xb')",
        "p.open(mode='ab')",
        "os.open(p, os.O_WRONLY | os.O_CREAT, 0o600)",
        "p.write_text('x')",
        "torch.save(x, p)",
        "zipfile.ZipFile(p, 'w')",
    ):
        assert scanned(writing), writing
        assert not scanned(f"refuse_foreign(p); {writing}"), writing
    for reading in ("open(p)", "p.open('rb')", "text.replace('a', 'b')", "dataclasses.replace(x)", "xs.remove(x)"):
        assert not scanned(reading), reading


NEW = "into a fresh hidden folder or temporary file that this function or its caller has just made"
RUN = "a file with a fixed name in a run's own folder, which `open_run` has checked before"
SEARCH = "a file with a fixed name in a sweep's or study's own folder"
BASIC = "writes for its callers, which are places of this list themselves"
HIDDEN = "a hidden name with a process number or a random part, made here"
RENTAL = "a file with a fixed name in the folder of one rental, whose name has a random part"
MIRROR = "the run of a rental: `up` has checked its folder, and what was there is the same run"
STYLE = "the two files of a prompt style in the folder of a tokenizer that is being made"
REPORT = "files with fixed names in the folder of a report"
CHECKOUT = "a generated file of this repository, under git"
LISTED = {
    "audit/machine_page.py write_environment_page": CHECKOUT,
    "checkpoint/directory.py _write_torch": NEW,
    "checkpoint/retention.py _hard_link": NEW,
    "checkpoint/retention.py _symlink": "replaces a link or a file named `last` or `best`, never a folder",
    "checkpoint/compressed.py _write_flushed": NEW,
    "checkpoint/compressed.py _write_tensors": NEW,
    "compression/command.py write_report": REPORT,
    "compression/report_chart.py draw": REPORT,
    "config/starter.py write_starter": "only into an empty folder, which it checks",
    "core/child_process.py __init__": "appends",
    "core/console.py _tell_starter": "mode x: fails where something is",
    "core/console.py run_script": "opens /dev/null",
    "core/directories.py clean_temporary": "only names made by `hidden_sibling` of processes that have ended",
    "core/directories.py new_directory": "removes its own temporary folder",
    "core/directories.py remove": "called by `put_in_place` and `remove_directory` after they have asked",
    "core/files.py __init__": "mode x: fails where something is",
    "core/files.py replacing": BASIC,
    "core/files.py write_atomically": BASIC,
    "core/files.py write_json": BASIC,
    "core/lock.py exclusive": "an empty lock file under a hidden name",
    "core/private_files.py open_private": BASIC,
    "core/source_code.py _patch": NEW,
    "data/chat_prepare.py _write": NEW,
    "data/mixture_data.py build": NEW,
    "data/prepared_folder.py _remove_leftovers": HIDDEN,
    "data/prepared_folder.py find_or_make": HIDDEN,
    "data/prepared_folder.py finish_meta": NEW,
    "data/stream/datatrove_engine.py datatrove_python": "a hidden folder in the cache folder, named after its packages",
    "data/stream/datatrove_engine.py tokenize_with_datatrove": "in a preparation's hidden working folder",
    "data/stream/datatrove_plan.py write": "in the working folder of a preparation, which has a hidden name",
    "data/stream/datatrove_tasks.py _for_the_user": "in the working folder of a preparation, which has a hidden name",
    "data/stream/datatrove_tasks.py run_on_slurm": "in the working folder of a preparation, which has a hidden name",
    "data/stream/remote_prepared.py build": NEW,
    "data/stream/shard_cache.py _opened": "a block that is damaged, in the hidden folder of blocks",
    "data/stream/shard_cache.py evict": "blocks in the hidden folder of blocks",
    "data/stream/shard_cache.py stored_block": "into the hidden folder of blocks",
    "data/unchanged.py remember": "a record under a hidden name of its own in the cache folder",
    "data/shakespeare.py _keep": "a download under its fixed name in the cache folder",
    "data/shards.py write_shard": NEW,
    "data/stream/chunk_shards.py __enter__": HIDDEN,
    "data/stream/chunk_shards.py __exit__": HIDDEN,
    "data/stream/chunk_shards.py finish": "into the working folder of a preparation, which has a hidden name",
    "data/stream/chunk_shards.py tokenize_chunk": "into the working folder of a preparation, which has a hidden name",
    "data/stream/finish.py _join_validation": "into the working folder of a preparation, which has a hidden name",
    "data/stream/finish.py clean": "in the working folder of a preparation, which has a hidden name",
    "data/stream/manifest.py write_manifest": NEW,
    "data/stream/packed_rows.py _make": "files with fixed names in a prepared folder",
    "data/stream/prepare_stream.py _fill": "in the working folder of a preparation, which has a hidden name",
    "data/stream/prepare_stream.py _make": HIDDEN,
    "data/stream/prepare_stream.py _tokenizer": "in the working folder of a preparation, which has a hidden name",
    "data/stream/token_writing.py _datatrove": NEW,
    "data/stream/token_writing.py _megatron": NEW,
    "data/stream/token_writing.py _write_raw": NEW,
    "deploy/rental/command.py _start_guard": "appends",
    "deploy/rental/local_machine.py end": RENTAL,
    "deploy/rental/local_machine.py launch": RENTAL,
    "deploy/rental/mirror.py _take_small": MIRROR,
    "deploy/rental/mirror.py pull_small": RENTAL,
    "deploy/rental/mirror.py unpack": NEW,
    "deploy/rental/parcel.py pack": NEW,
    "deploy/rental/skypilot.py launch": RENTAL,
    "evaluate/command.py _code": "only a new file, which it checks",
    "evaluate/plots.py draw": "into memory",
    "evaluate/report.py save_record": "files with fixed names in the folder of a checkpoint's evaluations",
    "export/gguf/importing.py _config_file": NEW,
    "export/gguf/vocabulary_in.py write_tokenizer": NEW,
    "export/gguf/writing.py write_gguf": BASIC,
    "export/onnx/exporting.py _checked": NEW,
    "export/onnx/graph.py write": NEW,
    "export/parity.py keep": BASIC,
    "export/single/arrays.py _write_json": NEW,
    "export/single/arrays.py _write_npz": NEW,
    "export/single/arrays.py _write_safetensors": NEW,
    "export/single/python_main.py load": NEW,
    "export/web/exporting.py _write": NEW,
    "export/huggingface/added_tokens.py build_in_added_tokens": NEW,
    "export/huggingface/importing.py _plain_config": NEW,
    "export/huggingface/exporting.py _write_weights": NEW,
    "export/huggingface/vocabulary.py _write": NEW,
    "export/huggingface/vocabulary.py gather_tokenizer": NEW,
    "export/huggingface/vocabulary.py write_tokenizer": NEW,
    "export/packaged.py _assemble": NEW,
    "export/writing.py export_file": BASIC,
    "export/writing.py export_folder": NEW,
    "generation/kernel_build.py build": "a temporary file; then a file in a cache folder of this user under its hash",
    "interpret/analysis.py write_report": REPORT,
    "interpret/pictures.py draw": REPORT,
    "interpret/pictures.py remove_others": "pictures of an earlier report in its own folder",
    "prompts/directory.py _write": STYLE,
    "prompts/directory.py save_style": STYLE,
    "pure/weights.py write_weights": BASIC,
    "search/child_run.py __init__": SEARCH,
    "search/child_run.py end_left_over": SEARCH,
    "search/child_run.py poll": SEARCH,
    "search/child_run.py write_claim": SEARCH,
    "search/plots.py draw": SEARCH,
    "search/results.py write_record": SEARCH,
    "serving/chat_log.py _rotate": "renames its own full files to numbered names that are free",
    "tokenizers/directory.py copy_companions": "into the folder of a tokenizer that is being made",
    "training/before_after.py _write": RUN,
    "training/before_after.py compare": RUN,
    "training/metrics.py _rewrite": RUN,
    "training/metrics.py flush": RUN,
    "training/record.py keep_diff": RUN,
    "training/record.py record_environment": RUN,
    "training/results.py draw_curves": RUN,
    "training/run_folder.py _make_writable": HIDDEN,
    "training/run_folder.py claim_run": RUN,
    "training/run_folder.py write_json": RUN,
    "training/run_folder.py write_text": RUN,
    "training/runner.py _carry_out": RUN,
    "training/samples.py write_samples": RUN,
    "training/suite_curves.py _score": RUN,
    "training/suite_curves.py on_train_start": RUN,
    "training/wandb_runs.py close_run": "a file of its own in the folder that W&B made for this run",
    "training/watchdog.py _close": RUN,
    "training/watchdog.py on_train_start": RUN,
    "upstream/commands.py record_manifest": CHECKOUT,
    "upstream/commands.py record_names": CHECKOUT,
    "upstream/sync.py _roll_back": "only new paths of the sync that failed, which did not exist before",
}
