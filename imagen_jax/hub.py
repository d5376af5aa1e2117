"""Where a model lies: shipped, in a folder, or on the Hugging Face hub.

A folder of the hub is hf://ORG/NAME[@REVISION][/FOLDER]. huggingface_hub fetches it:
with the token of the environment or of `hf auth login`, into its cache, going on after
a cut connection. A revision, "main" by default, is told as the commit that it was. No
pickle is ever fetched.
"""

import errno
import importlib.util
import os
import pathlib
import posixpath
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

PUBLISHED = pathlib.Path(__file__).parent / "published"  # the shipped models
SCHEME = "hf://"
ADDRESS = re.compile(
    r"hf://(?P<name>[\w.-]+/[\w.-]+)"
    r"(@(?P<revision>refs/(?:pr|convert)/[\w.-]+|[^/@]+))?"
    r"(/(?P<folder>.*))?"
)
# Beside *.json and *.safetensors; tokenizers, and what licences ask to keep.
FILES = {
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "vocab.txt",
    "merges.txt",
    "NOTICE",
    "LICENSE",
    "LICENSE.md",
}
# Networks of diffusers' folders that no model here has.
LEFT_OUT = ("safety_checker/", "watermarker/", "onnx/")
VARIANT = re.compile(r"\.(?P<variant>fp16|bf16|non_ema)[.-]")


class Address(NamedTuple):
    """A repository, a revision of it ("" is the newest), and a folder in it."""

    name: str
    revision: str
    folder: str


class Local(NamedTuple):
    """A folder on this machine, and the name that says where it is from."""

    folder: str
    name: str


def local(
    path: str, *, variant: str = "", needs: str = "", without: Sequence[str] = ()
) -> Local:
    """A folder as it is, or one of the hub, fetched as far as the cache lacks it.

    Args:
      path: a local path, gs://..., or hf://ORG/NAME[@REVISION][/FOLDER].
      variant: "fp16" for half-size weights where there are some.
      without: folders of the hub's folder that are not wanted, as "text_encoder/".
      needs: a file that the hub's folder must have, before anything is fetched.

    Raises:
      ValueError: saying what to do, if huggingface_hub is not installed, the
        repository is gated or missing, or lacks the revision, the folder or the file;
        if the hub cannot be reached, or the disk is full.
    """
    if not path.startswith(SCHEME):
        return Local(path, posixpath.basename(path.rstrip("/")) or path)
    address = parse(path)
    if importlib.util.find_spec("huggingface_hub") is None:
        raise ValueError(
            f"hub: {path} needs huggingface_hub; pip install 'imagen_jax[hub]'."
        )
    names = _listing(address, path)
    if names is None:
        snapshot = _cached(address, path, variant, without)
    else:
        chosen = wanted(names, address.folder, variant, without)
        _check(address, path, names, chosen, needs)
        snapshot = _fetch(address, path, chosen)
    # Its last part is the commit that the revision was when it was fetched.
    pinned = f"{SCHEME}{address.name}@{os.path.basename(snapshot)}"
    if not address.folder:
        return Local(snapshot, pinned)
    return Local(os.path.join(snapshot, address.folder), f"{pinned}/{address.folder}")


def model_folder(model: str) -> pathlib.Path:
    """The model directory of a shipped model's name, of hf://ORG/NAME, or itself.

    Raises:
      ValueError: if there is none, or as `local` does.
    """
    if model.startswith(SCHEME):
        return pathlib.Path(local(model, needs="model.json").folder)
    shipped = PUBLISHED / model
    if model and (shipped / "model.json").is_file():
        return shipped
    if not pathlib.Path(model).is_dir():
        names = sorted(path.parent.name for path in PUBLISHED.glob("*/model.json"))
        raise ValueError(
            f"model: {model!r} is neither a shipped model ({', '.join(names)}), a "
            "directory, nor hf://ORG/NAME."
        )
    return pathlib.Path(model)


def parse(path: str) -> Address:
    """The parts of hf://ORG/NAME[@REVISION][/FOLDER].

    Raises:
      ValueError: if it is written otherwise.
    """
    match = ADDRESS.fullmatch(path)
    folder = (match["folder"] or "").strip("/") if match else ""
    if not match or ".." in folder.split("/"):
        raise ValueError(
            f"hub: must be hf://ORG/NAME[@REVISION][/FOLDER], got {path!r}."
        )
    return Address(match["name"], match["revision"] or "", folder)


def wanted(
    names: Iterable[str],
    folder: str = "",
    variant: str = "",
    without: Sequence[str] = (),
) -> list[str]:
    """The files of a repository that a model is read from.

    Args:
      names: of all its files.
      folder: that is asked for, "" is all.
      variant: of weights: where a folder has some of it, these and no others.
      without: folders that are not wanted.
    """
    prefix = f"{folder}/" if folder else ""
    inside = [name for name in names if name.startswith(prefix)]
    out = (*LEFT_OUT, *without)
    inside = [n for n in inside if not n.removeprefix(prefix).startswith(out)]
    weights = {n for n in inside if n.endswith(".safetensors") or ".index." in n}
    has = {posixpath.dirname(n) for n in weights if _variant_of(n) == variant}
    chosen = []
    for name in inside:
        if ".bin.index." in name:
            continue
        if name in weights:
            there = variant if posixpath.dirname(name) in has else ""
            keep = _variant_of(name) == there
        else:
            keep = name.endswith(".json") or posixpath.basename(name) in FILES
        if keep:
            chosen.append(name)
    return sorted(chosen)


def _variant_of(name: str) -> str:
    match = VARIANT.search(posixpath.basename(name))
    return match["variant"] if match else ""


def _listing(address: Address, path: str) -> list[str] | None:
    """The files of a revision; None where the hub is out of reach."""
    import huggingface_hub
    from huggingface_hub import errors

    try:
        info = huggingface_hub.HfApi().model_info(
            address.name, revision=address.revision or "main"
        )
    except errors.HfHubHTTPError as error:
        if getattr(error.response, "status_code", 0) >= 500:
            return None
        raise _refused(address, path, error) from error
    except ValueError as error:
        raise ValueError(f"hub: {path}: {error}") from error
    except Exception:
        # The HTTP library below differs between versions, and so do its errors.
        return None
    return [sibling.rfilename for sibling in info.siblings or ()]


def _check(
    address: Address, path: str, names: list[str], chosen: list[str], needs: str
) -> None:
    prefix = f"{address.folder}/" if address.folder else ""
    if prefix and not any(name.startswith(prefix) for name in names):
        folders = sorted({n.split("/")[0] for n in names if "/" in n})
        raise ValueError(
            f"hub: {address.name} has no folder {address.folder!r}; its folders are "
            f"{', '.join(folders) or 'none'}."
        )
    if needs and prefix + needs not in names:
        kind = "deepfloyd" if prefix + "model_index.json" in names else "FORMAT"
        raise ValueError(
            f"hub: {path} has no {needs}, so it is no model of imagen_jax; turn it "
            f"into one with `imagen-jax convert --from {kind} {path} --to DIR`."
        )
    if not any(name.endswith(".safetensors") for name in chosen):
        raise ValueError(
            f"hub: {path} has no safetensors files, only what can run code when read. "
            "Look for a revision that has them (some have one at @refs/pr/N)."
        )


def _fetch(address: Address, path: str, chosen: list[str]) -> str:
    """Fetch the chosen files that the cache lacks; the folder of the commit."""
    import huggingface_hub
    from huggingface_hub import errors

    # The names are exact, but for "[", which begins a set of characters.
    patterns = [name.replace("[", "[[]") for name in chosen]
    try:
        return huggingface_hub.snapshot_download(
            address.name, revision=address.revision or "main", allow_patterns=patterns
        )
    except errors.HfHubHTTPError as error:
        raise _refused(address, path, error) from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise ValueError(
                f"hub: the disk is full while fetching {path}; make room, or name a "
                "larger disk in HF_HOME. Files that are whole stay."
            ) from error
        raise _unreachable(address, path, error) from error


def _cached(address: Address, path: str, variant: str, without: Sequence[str]) -> str:
    """The folder of a revision that the cache has whole."""
    import huggingface_hub

    prefix = f"{address.folder}/" if address.folder else ""
    kinds = ("*.json", f"*.{variant}*.safetensors" if variant else "*.safetensors")
    others = () if variant else ("*.fp16*", "*.bf16*", "*.non_ema*")
    try:
        return huggingface_hub.snapshot_download(
            address.name,
            revision=address.revision or "main",
            local_files_only=True,
            allow_patterns=[prefix + kind for kind in (*kinds, *sorted(FILES))],
            ignore_patterns=[
                *others,
                "*.bin.index.*",
                *(f"{prefix}{folder}*" for folder in (*LEFT_OUT, *without)),
            ],
        )
    except Exception as error:
        raise _unreachable(address, path, error) from error


def _page(address: Address) -> str:
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{address.name}"


def _refused(address: Address, path: str, error: Any) -> ValueError:
    from huggingface_hub import errors

    status = getattr(error.response, "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return ValueError(
            f"hub: {address.name} is gated: accept its licence at {_page(address)}, "
            "then give your token with `hf auth login` or in HF_TOKEN."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ValueError(
            f"hub: {address.name} has no revision {address.revision or 'main'!r}; see "
            f"{_page(address)}/tree/main."
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return ValueError(
            f"hub: there is no repository {address.name}, or it is private: check the "
            f"name at {_page(address)}, or log in with `hf auth login`."
        )
    if status in (401, 403):
        return ValueError(
            f"hub: {_page(address)} answers {status}: accept its licence there if it "
            "has one, then give a valid token with `hf auth login` or in HF_TOKEN."
        )
    return ValueError(
        f"hub: {_page(address)} answers {status}; give the same command again later, "
        "files that are whole stay."
    )


def _unreachable(address: Address, path: str, error: Exception) -> ValueError:
    return ValueError(
        f"hub: {path} cannot be fetched ({type(error).__name__}: "
        f"{' '.join(str(error).split())[:200]}); give the same command again when the "
        "network is back, files that are whole stay. Or fetch it elsewhere with `hf "
        f"download {address.name} --local-dir DIR` and give DIR."
    )
