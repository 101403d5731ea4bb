"""The image: built from a bare Debian, trains and serves as an ordinary user.

Nightly: it installs every package once more. Needs root, buildah and debootstrap (Debian's packages), and a network.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
pytestmark = [
    pytest.mark.nightly,
    pytest.mark.serial,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(
        os.name != "posix" or os.geteuid() != 0 or not shutil.which("buildah") or not shutil.which("debootstrap"),
        reason="needs root, buildah and debootstrap",
    ),
]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    place = tmp_path_factory.mktemp("image")
    image = Image(place)
    try:
        image.build_base()
        image.build()
        yield image
    finally:
        shutil.rmtree(place)


class Image:
    """buildah with a storage of its own, which is deleted afterwards."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.storage = [
            "buildah",
            "--root",
            str(place / "storage"),
            "--runroot",
            str(place / "run"),
            "--storage-driver",
            "vfs",
        ]

    def call(self, *arguments: str, seconds: float = 1800) -> str:
        done = subprocess.run([*self.storage, *arguments], capture_output=True, text=True, timeout=seconds, cwd=ROOT)
        assert done.returncode == 0, f"{arguments}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout.strip()

    def build_base(self) -> None:
        """A bare Debian with Python and a compiler, and with the certificates that this machine trusts."""
        tree = self.place / "debian"
        packages = "python3,python3-venv,python3-dev,g++,ca-certificates"
        command = ["debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", str(tree)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
        assert done.returncode == 0, done.stdout[-3000:]
        shutil.copy(CERTIFICATES, tree / CERTIFICATES[1:])
        container = self.call("from", "scratch")
        self.call("add", container, str(tree), "/")
        self.call("commit", "--rm", container, "bare-debian")
        shutil.rmtree(tree)

    def build(self) -> None:
        file = ROOT / "light_compute_project" / "docker" / "Dockerfile"
        options = ["--isolation", "chroot", "--layers=false", "--build-arg", "BASE=localhost/bare-debian"]
        trust = ["--env", f"SSL_CERT_FILE={CERTIFICATES}"]
        self.call("bud", *options, *trust, "-f", str(file), "-t", "lcp", ".")
        self.container = self.call("from", "lcp")

    def lcp(self, *arguments: str, volume: Path) -> list[str]:
        """The command that runs `lcp` in a container as user 1000, with `volume` as its folder."""
        run = [*self.storage, "run", "--isolation", "chroot", "--user", "1000", "--volume", f"{volume}:/workspace"]
        return [*run, self.container, "--", "lcp", *arguments]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("workspace")
    os.chown(place, 1000, 1000)
    return place


@pytest.fixture(scope="module")
def run(image: Image, folder: Path) -> Path:
    done = subprocess.run(
        image.lcp("train", "+experiment=smoke", volume=folder), capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder / "runs" / "smoke"


def test_training_leaves_files_of_the_user(run: Path) -> None:
    assert (run / "final" / "lit_model.pth").is_file() and (run / "summary.json").is_file()
    assert {path.lstat().st_uid for path in run.rglob("*")} == {1000}


def test_the_server_answers(image: Image, run: Path, folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    server = subprocess.Popen(image.lcp("serve", "--port", str(port), volume=folder), stdout=subprocess.DEVNULL)
    try:
        assert _health(f"http://127.0.0.1:{port}/health", seconds=120)["status"] == "ok"
    finally:
        server.terminate()
        server.wait(60)


def _health(address: str, *, seconds: float) -> dict[str, object]:
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                return dict(json.load(answer))
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
