"""The wheel trains: built, installed beside nothing of the checkout, used in an empty folder, which keeps all files."""

from __future__ import annotations

import os
import re
import shutil
import site
import subprocess
import sys
import sysconfig
import venv
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
SHORT = ("trainer.max_steps=20", "trainer.eval_interval=10", "trainer.save_interval=10", "trainer.compile=false")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built offline from a copy of what a source distribution takes, so that nothing appears in the checkout."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "MANIFEST.in"):
        shutil.copy(ROOT / name, source)
    for name in ("src", "configs"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / "light_compute_project" / name, source / "light_compute_project" / name, ignore=ignored)
    done = subprocess.run([sys.executable, "-c", BUILD, str(target)], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return target / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `lcp` of a new environment that holds the wheel, and sees the packages of this one but not the checkout."""
    place = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(place, with_pip=False, symlinks=os.name != "nt")
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    ask = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip())
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    # Only names, no `.pth` of an editable install is followed: the checkout stays out of sight.
    others = [sysconfig.get_path("purelib"), *(site.getsitepackages() if sys.prefix == sys.base_prefix else [])]
    (packages / "others.pth").write_text("".join(f"{path}\n" for path in others), encoding="utf-8")
    script = python.with_name("lcp")
    script.write_text("from litgpt_core.cli import run\nrun()\n", encoding="utf-8")
    return script


def files_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if "__pycache__" not in path.parts}


def lcp(
    installed: Path, *arguments: str, folder: Path, codes: tuple[int, ...] = (0,)
) -> subprocess.CompletedProcess[str]:
    python = installed.with_name("python.exe" if os.name == "nt" else "python")
    hidden = {"PYTHONPATH", "WANDB_API_KEY", "LIGHT_COMPUTE_CONFIG_DIR"}
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    environment |= {
        "HOME": str(folder / "home"),
        "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache"),
    }
    done = subprocess.run(
        [str(python), str(installed), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode in codes, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done


def test_the_metadata_is_complete(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        content = {name.rpartition("/")[2]: archive.read(name).decode() for name in names if ".dist-info/" in name}
    metadata = message_from_string(content["METADATA"])
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "lcp = litgpt_core.cli:run" in content["entry_points.txt"]
    assert {"corpus", "tensorboard"} <= set(metadata.get_all("Provides-Extra") or [])
    required = metadata.get_all("Requires-Dist") or []
    assert all("extra ==" in line for line in required if line.startswith(("sympy", "networkx")))
    assert all("==" not in line.partition(";")[0] for line in required if "extra ==" not in line), "bounds, no pins"
    shipped = {
        path.relative_to(ROOT / "light_compute_project")
        for path in (ROOT / "light_compute_project/configs").rglob("*.yaml")
    }
    assert {Path(name).relative_to("litgpt_core") for name in names if "/configs/" in name} == shipped
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"litgpt_core"}


def test_the_wheel_trains_and_generates_and_all_files_lie_in_the_folder(installed: Path, tmp_path: Path) -> None:
    packages = installed.parents[1]
    before = files_below(packages)
    folder = tmp_path / "empty"
    (folder / "home").mkdir(parents=True)
    assert "sync" not in lcp(installed, "--help", folder=folder).stdout

    trained = lcp(installed, "train", "+experiment=smoke", "logger=none", *SHORT, folder=folder)
    assert "lcp generate smoke" in trained.stdout and "uv run lcp" not in trained.stdout
    assert (folder / "runs" / "smoke" / "final" / "lit_model.pth").is_file()
    assert [path.name.split("-")[0] for path in (folder / "data").iterdir() if path.is_dir()] == ["small_source"]
    text = lcp(installed, "generate", "runs/smoke", "--prompt", "import ", "--max-new-tokens", "8", folder=folder)
    assert text.stdout.startswith("import ")

    assert "first.yaml" in lcp(installed, "init", "mine", folder=folder).stdout
    own = [*SHORT, "logger=none", "trainer.devices=2", "trainer.accelerator=cpu"]
    (folder / "mine" / "home").mkdir()
    lcp(installed, "train", "+experiment=first", *own, folder=folder / "mine")
    assert (folder / "mine" / "runs" / "first" / "final" / "lit_model.pth").is_file()

    report = lcp(installed, "doctor", folder=folder, codes=(0, 1)).stdout
    assert re.search(r"^ok +packages +.* the package's metadata$", report, re.MULTILINE) and "configs" in report
    assert not re.search(r"^\w+ +(?:git|LitGPT|\.gitignore) ", report, re.MULTILINE)

    assert {path.name for path in folder.iterdir()} == {"data", "home", "mine", "runs"}
    assert files_below(packages) == before
