"""From the Hub come exactly the files of one commit's model, and to it go no others."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError
from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]

from fastbert.errors import FolderError
from fastbert.folder import hub
from fastbert.folder.export import ExportManifest, Parity
from fastbert.folder.hub import fetch_folder, push_folder
from fastbert.folder.names import HASHED_FILES, own_files
from fastbert.folder.read import open_folder
from fastbert.folder.write import seal
from tests.folder.folders import FOREIGN, content, put, save

OWN = {*HASHED_FILES, "early_exit.json", "README.md"}
PIECES = ("embeddings", "layer_01", "layer_02", "layer_03", "layer_04")
CARD = {"speed-accuracy.png": b"png"}


def files_of(runtime: str, suffix: str) -> set[str]:
    return {f"{runtime}/{piece}{end}" for piece in PIECES for end in (suffix, ".bin")}


OPENVINO = {"openvino/manifest.json", *files_of("openvino", ".xml")}
ONNX = {"onnx/manifest.json", "onnx/adaptive.onnx", *files_of("onnx", ".onnx")}


class FakeHub:
    """A repository `me/reviews`; the names of its commits are letters, the last one is `main`."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.commits: dict[str, Path] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.pushed: dict[str, Any] = {}
        self.meanwhile: dict[str, Path] = {}

    def download(self, repo_id: str, name: str, *, revision: str | None, token: str | None) -> str:
        assert (repo_id, token) == ("me/reviews", "secret")
        self.asked.append((name, revision))
        commit = max(self.commits) if revision in (None, "main") else str(revision)
        source = self.commits[commit] / name
        self.commits |= self.meanwhile  # somebody pushes
        if not source.is_file():
            answer: Any = SimpleNamespace(headers={}, request=None)
            raise RemoteEntryNotFoundError(f"404: no {name}", response=answer)
        place = self.cache / "models--me--reviews" / "snapshots" / commit / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, place)
        return str(place)

    def create_repo(self, repo_id: str, private: bool | None, exist_ok: bool) -> Any:
        self.pushed["private"] = private
        return SimpleNamespace(repo_id=f"me/{repo_id}")

    def list_repo_files(self, repo_id: str) -> list[str]:
        return list(content(self.commits[max(self.commits)])) if self.commits else []

    def upload_folder(self, folder_path: Path, **options: Any) -> Any:
        self.pushed |= options | {"content": content(folder_path)}
        return SimpleNamespace(commit_url="https://hub/me/reviews/commit/b")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub(tmp_path / "cache")
    monkeypatch.setattr(hub, "hf_hub_download", fake.download)
    monkeypatch.setattr(hub, "HfApi", lambda token: fake)
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr(hub, "find_spec", lambda name: True)
    return fake


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a model with two exports, whose files hold nothing to speak of, and with much else."""
    model = save(tmp_path / "model")
    put(model, CARD | FOREIGN | {"checkpoint-500/optimizer.bin": b"o", "training_args.bin": b"t"})
    put(model, {name: name.encode() for name in (OPENVINO | ONNX)})
    parity = Parity(9, "some texts", 0.5, 0, 0, 0, 0, 1e-6)
    for runtime, names in (("openvino", OPENVINO), ("onnx", ONNX)):
        files = {Path(name).name: "0" * 64 for name in names - {f"{runtime}/manifest.json"}}
        manifest = ExportManifest(runtime, "fp32", None, files, {}, {}, parity)  # type: ignore[arg-type]
        (model / runtime / "manifest.json").write_text(manifest.to_json())
    return model


def fetch(runtime: Any = "auto", revision: str | None = None) -> Path:
    return fetch_folder("me/reviews", revision, "secret", runtime)


@pytest.mark.parametrize(
    ("runtime", "installed", "export"),
    [
        ("torch", {"openvino", "onnxruntime"}, set()),
        ("openvino", {"openvino", "onnxruntime"}, OPENVINO),
        ("onnx", {"openvino", "onnxruntime"}, ONNX),
        ("auto", {"openvino", "onnxruntime"}, OPENVINO),
        ("auto", {"onnxruntime"}, ONNX),
        ("auto", set(), set()),
    ],
)
def test_exactly_the_files_of_the_model_and_of_one_export_are_fetched(
    fake: FakeHub,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    runtime: str,
    installed: set[str],
    export: set[str],
) -> None:
    monkeypatch.setattr(hub, "find_spec", lambda name: name in installed)
    fake.commits["a"] = model
    folder = fetch(runtime)

    assert content(folder).keys() == OWN | CARD.keys() | export
    assert open_folder(folder).config == open_folder(model).config
    assert fake.asked[0] == ("early_exit.json", None)
    assert len(fake.asked) == len(set(fake.asked))


def test_a_calibration_is_fetched_where_the_model_has_one(fake: FakeHub, model: Path) -> None:
    put(model, {"calibration.safetensors": b"an old one"})
    fake.commits["a"] = model
    assert not (fetch("torch") / "calibration.safetensors").exists()
    fake.commits["b"] = shutil.copytree(model, model.with_name("calibrated"))
    seal(fake.commits["b"], replace(open_folder(model).config, calibration={}))
    assert (fetch("torch") / "calibration.safetensors").exists()


def test_a_push_while_fetching_does_not_mix_two_models(
    fake: FakeHub, model: Path, tmp_path: Path
) -> None:
    fake.commits["a"] = model
    fake.meanwhile["b"] = save(tmp_path / "other", mark=2.0)
    folder = fetch("torch", "main")

    assert fake.asked[0] == ("early_exit.json", "main")
    assert {revision for _, revision in fake.asked[1:]} == {"a"}
    assert content(folder) == {
        name: data for name, data in content(model).items() if name in OWN | CARD.keys()
    }


def test_a_repository_that_is_not_ours_costs_one_request(fake: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    put(tmp_path / "plain", {"config.json": b"{}", "pytorch_model.bin": b"gigabytes"})
    fake.commits["a"] = tmp_path / "plain"

    with pytest.raises(FolderError, match=r"me/reviews: not .*early_exit\.json.*fastbert distill"):
        fetch()
    assert fake.asked == [("early_exit.json", None)]


@pytest.mark.parametrize("name", ["../../evil.xml", "/etc/passwd", "layer_05.xml"])
def test_a_manifest_cannot_name_other_files(fake: FakeHub, model: Path, name: str) -> None:
    path = model / "openvino" / "manifest.json"
    entries = json.loads(path.read_text())
    entries["files"][name] = "0" * 64
    del entries["sha256"]
    path.write_text(json.dumps(entries))
    fake.commits["a"] = model

    with pytest.raises(FolderError, match=r"openvino/manifest\.json: lists .*push that"):
        fetch()
    assert name not in {Path(asked).name for asked, _ in fake.asked}


def test_what_the_cache_knows_to_be_absent_is_not_asked_for_again(
    fake: FakeHub, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = {"speed-accuracy.png", "openvino/manifest.json", "onnx/manifest.json"}
    monkeypatch.setattr(
        hub,
        "try_to_load_from_cache",
        lambda _, name, revision: object() if name in absent else None,
    )
    fake.commits["a"] = model
    assert content(fetch()).keys() == OWN


def test_a_hub_that_gives_half_a_model_is_one_clear_line(
    fake: FakeHub, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(repo_id: str, name: str, **options: Any) -> str:
        if name == "students.safetensors":
            raise LocalEntryNotFoundError("no connection\nand more")
        return fake.download(repo_id, name, **options)

    fake.commits["a"] = model
    monkeypatch.setattr(hub, "hf_hub_download", download)
    with pytest.raises(FolderError, match=r"^me/reviews: .* not give all of it: no connection$"):
        fetch()


def test_what_is_pushed_is_what_is_on_the_list_and_what_is_stale_goes(
    fake: FakeHub, model: Path
) -> None:
    folder = open_folder(model)
    fake.commits["a"] = model  # an earlier model of ours
    url = push_folder(folder, "reviews", True, "secret", "A better one")

    assert url == "https://hub/me/reviews/commit/b"
    assert fake.pushed["content"] == {
        str(name): (model / name).read_bytes() for name in own_files(model)
    }
    assert fake.pushed["content"].keys() == OWN | CARD.keys() | OPENVINO | ONNX
    assert (fake.pushed["repo_id"], fake.pushed["private"]) == ("me/reviews", True)
    remote = [*content(model), "calibration.safetensors"]
    stale = filter_repo_objects(remote, allow_patterns=fake.pushed["delete_patterns"])
    assert set(stale) == OPENVINO | ONNX | {"calibration.safetensors"}


def test_a_repository_of_another_model_is_not_overwritten(
    fake: FakeHub, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "plain").mkdir()
    put(tmp_path / "plain", {"config.json": b"{}", "model.safetensors": b"somebody's"})
    fake.commits["a"] = tmp_path / "plain"

    with pytest.raises(FolderError, match=r"me/reviews: holds another model \(config\.json, "):
        push_folder(open_folder(model), "reviews", None, "secret", "Mine")
    assert "content" not in fake.pushed
