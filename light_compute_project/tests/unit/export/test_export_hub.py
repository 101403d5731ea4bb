"""Models by name from a hub: a small server on this machine answers as a Hugging Face hub does."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants

from litgpt_core.checkpoint import load_model
from litgpt_core.commands.get import main as get_main
from litgpt_core.commands.import_huggingface import main as import_main
from litgpt_core.core.errors import CheckpointError, EnvironmentProblem
from litgpt_core.export.huggingface.hub import HubAddress, download

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Repositories by name: folders of this machine. `gated` ones are refused."""

    def __init__(self, repositories: dict[str, Path], *, gated: tuple[str, ...] = ()) -> None:
        self.asked: list[str] = []
        """Files that were sent."""
        hub = self

        class Answer(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None: ...

            def _send(self, body: bytes, status: int = 200, **headers: str) -> None:
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def _refuse(self, status: int, code: str) -> None:
                self._send(b"{}", status, X_Error_Code=code, X_Error_Message=code)

            def do_GET(self) -> None:
                parts = self.path.partition("?")[0].strip("/").split("/")
                name = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
                if name in gated:
                    return self._refuse(403, "GatedRepo")
                if name not in repositories:
                    return self._refuse(404, "RepoNotFound")
                folder = repositories[name]
                revision = parts[5] if parts[0] == "api" and len(parts) > 5 else COMMIT
                if revision not in ("main", COMMIT):
                    return self._refuse(404, "RevisionNotFound")
                if parts[0] == "api":
                    files = sorted(each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file())
                    facts = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in files]}
                    return self._send(json.dumps(facts).encode(), Content_Type="application/json")
                file = folder.joinpath(*parts[4:])
                if not file.is_file():
                    return self._refuse(404, "EntryNotFound")
                if self.command == "GET":
                    hub.asked.append(file.name)
                data = file.read_bytes()
                return self._send(data, X_Repo_Commit=COMMIT, ETag=f'"{hashlib.sha256(data).hexdigest()}"')

            do_HEAD = do_GET

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def hub(tmp_path: Path, make_folder: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    whole, pickled, quantized = make_folder("qwen3").path, tmp_path / "pickled", tmp_path / "quantized"
    (whole / "modeling_own.py").write_text("raise SystemExit('code of a repository was run')")
    (whole / "pytorch_model.bin").write_bytes(b"pickled weights, which nobody should fetch")
    (whole / "onnx").mkdir()
    (whole / "onnx" / "model.safetensors").write_bytes(b"of something else")
    pickled.mkdir()
    for file in whole.iterdir():
        if file.suffix in (".json", ".txt"):
            (pickled / file.name).write_bytes(file.read_bytes())
    from safetensors.torch import load_file

    torch.save(load_file(whole / "model.safetensors"), pickled / "pytorch_model.bin")
    quantized.mkdir()
    (quantized / "tiny.Q8_0.gguf").write_bytes(b"GGUF")
    made = Hub({"org/tiny": whole, "org/old": pickled, "org/tiny-GGUF": quantized}, gated=("org/closed",))
    monkeypatch.setenv("HF_ENDPOINT", made.address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.chdir(tmp_path)
    yield made
    made.close()


def test_a_name_is_imported_as_the_folder_would_be(hub: Hub, tmp_path: Path, ids: torch.Tensor) -> None:
    assert import_main(["org/tiny", "by_name"]) == 0
    assert sorted(set(hub.asked)) == sorted(hub.asked), "each file once"
    assert "model.safetensors" in hub.asked
    assert not {"modeling_own.py", "pytorch_model.bin"} & set(hub.asked), (
        "neither code nor a second copy of the weights"
    )
    assert import_main(["theirs", "by_folder"]) == 0
    own, same = (load_model(tmp_path / name) for name in ("by_name", "by_folder"))
    assert torch.equal(own(ids), same(ids))
    assert own.config.name == "Qwen3-tiny", "the model's name, not that of the snapshot"


def test_the_cache_serves_when_the_hub_is_gone(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert get_main(["org/tiny@main"]) == 0
    asked = len(hub.asked)
    assert get_main(["org/tiny@main", "--force"]) == 0
    assert len(hub.asked) == asked, "nothing is fetched twice"
    hub.close()
    assert get_main(["org/tiny@main", "--out", "offline"]) == 0
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert get_main(["org/tiny", "--out", "forbidden"]) == 0


def test_pickled_weights_only_where_there_are_no_others(hub: Hub, tmp_path: Path) -> None:
    assert import_main(["org/old", "old"]) == 0
    assert "pytorch_model.bin" in hub.asked and "model.safetensors" not in hub.asked


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("org/absent", "has no model org/absent"),
        ("org/tiny@v9", "has no model org/tiny at v9"),
        ("org/tiny/absent.gguf", "has no model absent.gguf in org/tiny"),
        ("org/closed", "accepted its terms"),
        ("org/tiny-GGUF", "lcp import org/tiny-GGUF/tiny.Q8_0.gguf"),
        ("org/tiny-GGUF/tiny.Q8_0.gguf", "truncated"),
        ("org/two--dashes", "no name of a model"),
    ],
)
def test_what_the_hub_refuses_is_one_error(hub: Hub, name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        import_main([name, "made"])
    assert said in str(caught.value)
    assert not (tmp_path / "made").exists()


def test_without_a_network_the_error_says_what_works(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.close()
    with pytest.raises(EnvironmentProblem, match="cannot be reached") as caught:
        import_main(["org/tiny", "made"])
    assert "HF_ENDPOINT" in str(caught.value) and "lcp get smollm2" in str(caught.value)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(EnvironmentProblem, match="cannot be reached"):
        import_main(["org/tiny/file.gguf", "made"])


def test_a_taken_target_is_refused_before_a_download(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "thesis.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"thesis\.txt"):
        import_main(["org/tiny", "made", "--force"])
    assert not hub.asked


def test_what_is_here_is_no_address(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "org" / "tiny").mkdir(parents=True)
    assert HubAddress.of("org/tiny") is None
    for path in ("folder", "/org/tiny", "./org/tiny", "a/b/c", "models/absent.gguf", "~/tiny", "org/ti ny"):
        assert HubAddress.of(path) is None, path
    assert HubAddress.of("org/other/x/y.gguf") == HubAddress(repository="org/other", file="x/y.gguf")
    assert HubAddress.of("org/other@v1.2").name == "other"  # type: ignore[union-attr]


def test_a_full_answer_is_needed(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **options: Any) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", full)
    with pytest.raises(EnvironmentProblem, match="No space left"):
        download(HubAddress(repository="org/tiny"))
