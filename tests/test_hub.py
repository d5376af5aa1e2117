"""Fetching from a hub, which is a server on this machine."""

import os
import pathlib
import subprocess
import sys
import types

import pytest

from imagen_jax import hub
from tests import hub_server

WEIGHTS = bytes(range(256)) * 4000
FILES = {
    "config.json": b"{}",
    "spiece.model": b"pieces",
    "model.safetensors": WEIGHTS,
    "model.fp16.safetensors": WEIGHTS[::2],
    "pytorch_model.bin": b"pickle",
    "pytorch_model.bin.index.json": b"{}",
    "README.md": b"",
    "unet/config.json": b"{ }",
    "unet/model.safetensors": b"unet",
    "safety_checker/model.safetensors": b"no",
}
OURS = {"model.json": b"{}", "base.safetensors": b"base", "NOTICE": b"keep"}
PICKLES = {"config.json": b"{}", "pytorch_model.bin": b"pickle"}
DIFFUSERS = {"model_index.json": b"{}", "unet/model.safetensors": b"unet"}
SCRIPT = "from imagen_jax import hub; print(hub.local('hf://org/ours').name)"


@pytest.fixture(scope="module")
def offered():
    repositories = {
        "org/t5": FILES,
        "org/ours": OURS,
        "org/pickles": PICKLES,
        "org/diffusers": DIFFUSERS,
        "org/gated": FILES,
    }
    server = hub_server.Hub(repositories)
    server.gated.add("org/gated")
    with hub_server.serve(server) as server.url:
        yield server


@pytest.fixture
def fetch(offered, tmp_path, monkeypatch):
    """`hub.local` with this server's endpoint and a cache of its own."""
    constants = pytest.importorskip("huggingface_hub.constants")
    offered.asked.clear()
    monkeypatch.setattr(constants, "ENDPOINT", offered.url)
    # Made of the endpoint when the library is imported.
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE
    template = offered.url + template.removeprefix("https://huggingface.co")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))
    return hub.local


def tree(folder):
    root = pathlib.Path(folder)
    return {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()}


def fetched(offered):
    return [
        path for kind, path, _ in offered.asked if kind == "GET" and "resolve" in path
    ]


def test_a_path_of_this_machine_stays(tmp_path):
    assert hub.local(f"{tmp_path}/model/") == (f"{tmp_path}/model/", "model")
    assert hub.local("gs://bucket/t5").folder == "gs://bucket/t5"


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("hf://org/t5", ("org/t5", "", "")),
        ("hf://org/t5@v1.0/unet", ("org/t5", "v1.0", "unet")),
        ("hf://org/t5@refs/pr/3", ("org/t5", "refs/pr/3", "")),
        ("hf://org/t5@refs/pr/3/a/b/", ("org/t5", "refs/pr/3", "a/b")),
    ],
)
def test_an_address_has_name_revision_and_folder(path, address):
    assert hub.parse(path) == address


@pytest.mark.parametrize("path", ["hf://t5", "hf://", "hf://a/b@", "hf://a/b/../c"])
def test_other_addresses_are_refused(path):
    with pytest.raises(ValueError, match="must be hf://ORG/NAME"):
        hub.parse(path)


def test_only_what_a_model_is_read_from_is_wanted():
    assert hub.wanted(FILES) == [
        "config.json", "model.safetensors", "spiece.model",
        "unet/config.json", "unet/model.safetensors",
    ]  # fmt: skip
    assert hub.wanted(FILES, "unet") == ["unet/config.json", "unet/model.safetensors"]
    half = hub.wanted(FILES, variant="fp16")
    assert "model.fp16.safetensors" in half and "model.safetensors" not in half
    assert "unet/model.safetensors" in half
    assert not [n for n in hub.wanted(FILES, without=("unet/",)) if "unet" in n]


def test_a_repository_is_fetched_once_and_pinned(fetch, offered):
    found = fetch("hf://org/t5")
    assert found.name == f"hf://org/t5@{hub_server.COMMIT}"
    assert tree(found.folder) == set(hub.wanted(FILES))
    assert pathlib.Path(found.folder, "model.safetensors").read_bytes() == WEIGHTS
    before = len(fetched(offered))
    assert fetch("hf://org/t5") == found
    assert len(fetched(offered)) == before == len(hub.wanted(FILES))


def test_a_folder_of_a_revision_is_fetched_alone(fetch, offered):
    found = fetch("hf://org/t5@refs/pr/1/unet")
    assert tree(found.folder) == {"config.json", "model.safetensors"}
    assert found.name == f"hf://org/t5@{hub_server.COMMIT}/unet"
    assert all("/unet/" in path for path in fetched(offered))


def test_a_cut_download_is_gone_on_with(fetch, offered):
    offered.cut["model.safetensors"] = 300_000
    found = fetch("hf://org/t5")
    assert pathlib.Path(found.folder, "model.safetensors").read_bytes() == WEIGHTS
    ranges = [
        r
        for _, path, r in offered.asked
        if path.endswith(f"{hub_server.COMMIT}/model.safetensors") and r
    ]
    assert ranges and 0 < int(ranges[-1].removeprefix("bytes=").rstrip("-")) <= 300_000


def test_a_gated_repository_says_where_to_accept_its_licence(
    fetch, offered, monkeypatch
):
    with pytest.raises(ValueError, match=r"gated: accept .*/org/gated.*hf auth login"):
        fetch("hf://org/gated")
    monkeypatch.setenv("HF_TOKEN", "bad")
    with pytest.raises(ValueError, match="gated: accept"):
        fetch("hf://org/gated")
    assert not fetched(offered)
    monkeypatch.setenv("HF_TOKEN", "good")
    assert "model.safetensors" in tree(fetch("hf://org/gated").folder)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("hf://org/none", "no repository org/none, or it is private: .*hf auth login"),
        ("hf://org/t5@v9", "org/t5 has no revision 'v9'"),
        ("hf://org/t5/vae", "no folder 'vae'; its folders are safety_checker, unet"),
        ("hf://org/pickles", "no safetensors files, only what can run code"),
    ],
)
def test_what_is_not_there_is_one_clear_line(fetch, offered, path, line):
    with pytest.raises(ValueError, match=line) as error:
        fetch(path)
    assert "\n" not in str(error.value) and not fetched(offered)


def test_a_model_of_another_package_is_not_fetched_to_be_sampled(fetch, offered):
    assert "base.safetensors" in tree(fetch("hf://org/ours", needs="model.json").folder)
    assert (hub.model_folder("hf://org/ours") / "model.json").is_file()
    offered.asked.clear()
    with pytest.raises(
        ValueError, match="convert --from deepfloyd hf://org/diffusers "
    ):
        fetch("hf://org/diffusers", needs="model.json")
    assert not fetched(offered)


def test_without_a_network_the_cache_is_used(fetch, offered, monkeypatch):
    from huggingface_hub import constants

    found = fetch("hf://org/ours")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert fetch("hf://org/ours").folder == found.folder
    with pytest.raises(ValueError, match=r"cannot be fetched .*hf download org/t5"):
        fetch("hf://org/t5")


def test_a_hub_that_is_down_is_as_no_network(fetch, monkeypatch):
    import huggingface_hub
    from huggingface_hub import errors

    found = fetch("hf://org/ours")

    class Down(errors.HfHubHTTPError):
        def __init__(self):
            self.response = types.SimpleNamespace(status_code=503)

    def model_info(*args, **kwargs):
        raise Down

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    assert fetch("hf://org/ours") == found


def test_a_full_disk_is_one_clear_line(fetch, monkeypatch):
    import huggingface_hub

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", full)
    with pytest.raises(ValueError, match=r"disk is full .*HF_HOME"):
        fetch("hf://org/t5")


def test_without_the_library_the_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(hub.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'imagen_jax\[hub\]'"):
        hub.local("hf://org/t5")


def test_the_endpoint_of_the_environment_is_asked(offered, tmp_path):
    pytest.importorskip("huggingface_hub")
    env = {
        **os.environ,
        "HF_ENDPOINT": offered.url,
        "HF_HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=env, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"hf://org/ours@{hub_server.COMMIT}"
