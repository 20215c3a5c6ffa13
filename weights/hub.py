"""From what a user names a model by to files on this machine, downloaded from the hub if need be.

huggingface_hub does the transfer (cache, resuming, progress bars on standard error, HF_TOKEN,
HF_HUB_OFFLINE, HF_ENDPOINT) and is imported only when a hub name is given.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn, TypeVar

from weights.errors import UserError
from weights.files.checkpoint import ARCHITECTURE_KEY
from weights.files.directory import SAFETENSORS_INDEX, split_parts
from weights.files.gguf_file import read_gguf
from weights.files.safetensors_file import index_shards
from weights.tensor import Encoding

Result = TypeVar("Result")

# What goes wrong on this machine's disk, not on the way to the hub.
_LOCAL_ERRORS = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR,
    errno.EEXIST, errno.EIO,
}  # fmt: skip

HUB_SCHEME = "hf://"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_HUB_FILE = re.compile(r"hf://(?P<repository>[^/@]+/[^/@]+)(@(?P<revision>[^/]+))?/(?P<file>[^/].*[^/]|[^/])")
_FILE_SUFFIXES = (".gguf", ".safetensors", ".json", ".bin")

# The models whose float GGUF files were published by MAX's authors, apart from the originals,
# which exist as a PyTorch pickle only.
_PUBLISHED_REPOSITORY = "modularai/replit-code-1.5"
_PUBLISHED_FILES = {"float32": "replit-code-v1_5-3b-f32.gguf"}
# It was trained and published in bfloat16: the float32 file holds the same values, and every other
# encoding is made from it when the model is loaded.
_PUBLISHED_DEFAULT = "replit-code-v1_5-3b-bf16.gguf"
_PUBLISHED_NAMES = ("replit/replit-code-v1_5-3b", _PUBLISHED_REPOSITORY)

# What GGUF file names call the encodings; q4_k comes in mixtures.
_NAMES_IN_FILES = {
    "float32": ("f32", "fp32", "float32"),
    "float16": ("f16", "fp16", "float16"),
    "bfloat16": ("bf16", "bfloat16"),
    "q4_k": ("q4_k", "q4_k_m", "q4_k_s"),
    "q5_k": ("q5_k", "q5_k_m", "q5_k_s"),
}
_SMALL_FILES = ("*.json", "*.model", "merges.txt")  # configuration, tokenizer, index
# What `headers` reads of a file: with a vocabulary of 50 000 tokens a GGUF header takes 2 to 4 MB.
_HEADER_BYTES = 16 << 20


def resolve(
    model: str,
    *,
    encoding: str | None,
    revision: str | None = None,
    weight_path: str | None = None,
    headers: Path | None = None,
) -> Path:
    """The local file or directory of a model.

    `model` is a path, `hf://owner/repository/file` or a hub repository, `@revision` after the
    repository; `weight_path`, a path or `hf://…`, replaces its weights. `encoding` picks among a
    repository's files, `revision` is a branch, tag or commit. With `headers`, a folder, only the
    beginnings of weights that are not in the cache are downloaded, to files of full size in it.
    Raises UserError for what does not exist or cannot be downloaded.
    """
    if weight_path is not None:
        return _path_or_file(weight_path, revision, "--weight-path", headers)
    if model.startswith(HUB_SCHEME) or Path(model).exists():
        return _path_or_file(model, revision, "--model", headers)
    model, _, pinned = model.partition("@")
    revision = pinned or revision
    looks_like_file = model.endswith(_FILE_SUFFIXES) or not _REPOSITORY.fullmatch(model)
    if looks_like_file:
        raise _no_such_path(model, "--model")
    if model in _PUBLISHED_NAMES:
        name = _PUBLISHED_FILES.get(encoding or "", _PUBLISHED_DEFAULT)
        return download_file(_PUBLISHED_REPOSITORY, name, revision, headers)
    return _from_repository(model, encoding, revision, headers)


def _path_or_file(name: str, revision: str | None, option: str, headers: Path | None) -> Path:
    if not name.startswith(HUB_SCHEME):
        path = Path(name)
        if not path.exists():
            raise _no_such_path(name, option)
        return path
    match = _HUB_FILE.fullmatch(name)
    if match is None:
        raise UserError(
            f"{option} {name!r} names no file; expected hf://owner/repository/file: "
            "type the file's name after the repository"
        )
    revision = match["revision"] or revision
    return _accompanied(
        download_file(match["repository"], match["file"], revision, headers), match["repository"], revision
    )


def _accompanied(path: Path, repository: str, revision: str | None) -> Path:
    """`path`, with configuration and tokenizer beside it where the file has none of its own."""
    if path.suffix != ".gguf" or ARCHITECTURE_KEY not in read_gguf(path).metadata:
        small = download_files(repository, [*_SMALL_FILES], revision)
        for file in small.iterdir():
            if not (path.parent / file.name).exists():  # headers only, in a folder of their own
                (path.parent / file.name).symlink_to(file.resolve())
    return path


def _no_such_path(name: str, option: str) -> UserError:
    return UserError(
        f"{option} {name!r} does not exist here; expected a file, a directory, "
        "owner/repository or hf://owner/repository/file: check the spelling"
    )


def _from_repository(repository: str, encoding: str | None, revision: str | None, headers: Path | None) -> Path:
    files = list_files(repository, revision)
    names = [name for name in files if "/" not in name]
    index = f"model{SAFETENSORS_INDEX}"
    if index in names or "model.safetensors" in names:
        weights = ["model.safetensors"]
        if "model.safetensors" not in names:
            weights = index_shards(download_files(repository, [*_SMALL_FILES], revision) / index)
        if headers is None:
            return download_files(repository, [*_SMALL_FILES, *weights], revision)
        for file in download_files(repository, [*_SMALL_FILES], revision).iterdir():
            if file.name not in weights:
                (headers / file.name).symlink_to(file.resolve())
        _translated(lambda: _download_headers(repository, weights, revision, headers), repository, revision)
        return headers
    ggufs = [name for name in names if name.endswith(".gguf") and split_parts(name)[0] == name]
    if not ggufs and headers is None and find_spec("torch") and any(name.startswith("pytorch_model") for name in names):
        return download_files(repository, [*_SMALL_FILES, "pytorch_model*"], revision)
    if not ggufs:
        held = ", ".join(name for name in names if name.endswith(_FILE_SUFFIXES)) or "no model"
        raise UserError(
            f"the hub repository {repository} holds {held}; expected model.safetensors or a .gguf "
            f"file: type `replit convert {repository} model.gguf`, then --weight-path model.gguf"
        )
    return download_file(repository, _choose(repository, ggufs, encoding), revision, headers)


def _choose(repository: str, names: list[str], encoding: str | None) -> str:
    """The only GGUF file, or the one named after the encoding, or one that can be converted to it."""
    stated = {name: encoding_in_name(name) for name in names}
    # A quantized file is no source for another encoding, a float one is.
    wanted = (encoding, "bfloat16", "float16", "float32") if encoding else ()
    for choice in wanted:
        fitting = [name for name in names if stated[name] == choice]
        if len(fitting) == 1:
            return fitting[0]
    if len(names) == 1 and (encoding is None or stated[names[0]] is None):
        return names[0]
    expected = f"one in {encoding} or in floats" if encoding else "one of them to be chosen"
    raise UserError(
        f"the hub repository {repository} holds {', '.join(names)}; expected {expected}: type "
        f"--weight-path hf://{repository}/{names[0]}"
    )


def encoding_in_name(name: str) -> str | None:
    """The encoding that a GGUF file's name states, None if it states none."""
    stem = name.lower().removesuffix(".gguf")
    for encoding in Encoding:
        for text in _NAMES_IN_FILES.get(encoding.value, (encoding.value,)):
            if re.search(rf"(?<![a-z0-9]){text}(?![a-z0-9_])", stem):
                return encoding.value
    return None


def list_files(repository: str, revision: str | None = None) -> list[str]:
    """File names in a hub repository; those in the cache where the hub cannot be reached."""

    def listed() -> list[str]:
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

        try:
            return _listed_by_hub(repository, revision)
        except (RepositoryNotFoundError, RevisionNotFoundError):
            raise
        except Exception as error:
            cached = _cached_files(repository, revision)
            if not cached:
                raise error
            return cached

    return _translated(listed, repository, revision)


def _listed_by_hub(repository: str, revision: str | None) -> list[str]:
    """One request that is not retried: the library's other calls try for 23 seconds."""
    from huggingface_hub import HfApi, constants

    info = HfApi().model_info(repository, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    return [file.rfilename for file in info.siblings or ()]


def _cached_files(repository: str, revision: str | None) -> list[str]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            repository, revision=revision, allow_patterns=list(_SMALL_FILES), local_files_only=True
        )
    except LocalEntryNotFoundError:
        return []
    root = Path(folder)
    return [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]


def download_file(repository: str, name: str, revision: str | None = None, headers: Path | None = None) -> Path:
    """The local path of a file of a hub repository, of its first part if the model is split.

    With `headers`, a folder, see `resolve`.
    """

    def downloaded() -> Path:
        from huggingface_hub import hf_hub_download, try_to_load_from_cache

        if not isinstance(try_to_load_from_cache(repository, name, revision=revision), str):
            _listed_by_hub(repository, revision)  # says at once what is wrong with the connection
            if headers is not None:
                return _download_headers(repository, split_parts(name), revision, headers)
        parts = [hf_hub_download(repository, part, revision=revision) for part in split_parts(name)]
        return Path(parts[0])

    return _translated(downloaded, repository, revision, name)


def _download_headers(repository: str, names: Sequence[str], revision: str | None, folder: Path) -> Path:
    """Files of full size in `folder`: _HEADER_BYTES as the hub has them, then a hole. Returns the first's path."""
    from huggingface_hub import get_hf_file_metadata, get_session, get_token, hf_hub_url, try_to_load_from_cache

    token = get_token()
    wanted = {"Range": f"bytes=0-{_HEADER_BYTES - 1}", "Accept-Encoding": "identity"}
    if token is not None:
        wanted["Authorization"] = f"Bearer {token}"
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cached = try_to_load_from_cache(repository, name, revision=revision)
        if isinstance(cached, str):
            path.symlink_to(Path(cached).resolve())
            continue
        url = hf_hub_url(repository, name, revision=revision)
        size = get_hf_file_metadata(url).size
        response = get_session().get(url, headers=wanted, follow_redirects=True)
        response.raise_for_status()
        with path.open("wb") as file:
            file.write(response.content)
            file.truncate(size)
    return folder / names[0]


def download_files(repository: str, patterns: list[str], revision: str | None = None) -> Path:
    """The local directory with the files of a hub repository that match."""

    def downloaded() -> Path:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))

    return _translated(downloaded, repository, revision)


def _translated(action: Callable[[], Result], repository: str, revision: str | None, name: str | None = None) -> Result:
    """Run one use of the library, its many errors as ours.

    Its HTTP client's errors share no base class with its own, so everything is caught; the cause
    stays attached for --debug.
    """
    try:
        return action()
    except UserError:
        raise
    except Exception as error:
        _raise_hub_error(error, repository, revision, name)


def _raise_hub_error(error: Exception, repository: str, revision: str | None, name: str | None) -> NoReturn:
    from huggingface_hub import errors

    where = f"the hub repository {repository}"
    if isinstance(error, errors.GatedRepoError):
        text = f"{where} is gated; expected access to it: accept its terms, set HF_TOKEN"
    elif isinstance(error, errors.RepositoryNotFoundError):
        text = f"{where} does not exist or is private; expected a public one: check its name, or "
        text += "set HF_TOKEN"
    elif isinstance(error, errors.RevisionNotFoundError):
        text = f"{where} has no revision {revision!r}; expected a branch, tag or commit: check it"
    elif isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
        text = f"{where} has no file {name!r}; expected one that it holds: check the name"
    elif isinstance(error, errors.HFValidationError):
        text = f"{repository!r} cannot be a hub repository ({error}); expected owner/name: check it"
    elif isinstance(error, OSError) and error.errno in _LOCAL_ERRORS:
        text = f"cannot store {where} ({error.strerror}: {error.filename or 'the cache'}); expected "
        text += "room and permission there: free some space, or set HF_HOME"
    else:
        text = _unreachable(error, where)
    raise UserError(text) from error


def _unreachable(error: Exception, where: str) -> str:
    from huggingface_hub import constants, errors

    if constants.HF_HUB_OFFLINE:
        return (
            f"{where} is not in the cache and HF_HUB_OFFLINE is set; expected its files there: "
            "unset HF_HUB_OFFLINE, or give a local file with --weight-path"
        )
    # The library wraps the reason in two layers of advice of its own.
    cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) else None
    reason = str(cause or error) or type(cause or error).__name__
    return (
        f"cannot download {where} ({reason[:200]}); expected the hub to answer or the files in its "
        "cache: check the connection, or give a local file with --weight-path"
    )
