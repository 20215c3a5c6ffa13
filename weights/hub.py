"""From what a user names a model by to files on this machine, downloaded from the hub if need be.

huggingface_hub does the transfer (cache, resuming, progress bars on standard error, HF_TOKEN,
HF_HUB_OFFLINE, HF_ENDPOINT) and is imported only when a hub name is given.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn, TypeVar
from urllib.parse import quote, unquote

from weights.errors import UserError
from weights.files.checkpoint import ARCHITECTURE_KEY
from weights.files.directory import SAFETENSORS_INDEX, model_files, split_parts
from weights.files.gguf_file import read_gguf
from weights.files.paths import exists
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
# As in huggingface_hub's own addresses: a slash in a revision is %2F, but for those of pull requests and conversions.
_HUB_FILE = re.compile(
    r"hf://(?P<repository>[^/@]+/[^/@]+)(@(?P<revision>refs/(pr|convert)/[^/]+|[^/]+))?/(?P<file>[^/].*[^/]|[^/])"
)
_FILE_SUFFIXES = (".gguf", ".safetensors", ".json", ".bin")
_WEIGHTS = (".gguf", ".safetensors", ".bin", SAFETENSORS_INDEX)

# The models whose float GGUF files were published by MAX's authors, apart from the originals,
# which exist as a PyTorch pickle only.
_PUBLISHED_REPOSITORY = "modularai/replit-code-1.5"
_PUBLISHED_FILES = {"float32": "replit-code-v1_5-3b-f32.gguf"}
# It was trained and published in bfloat16: the float32 file holds the same values, and every other
# encoding is made from it when the model is loaded.
_PUBLISHED_DEFAULT = "replit-code-v1_5-3b-bf16.gguf"
_PUBLISHED_NAMES = ("replit/replit-code-v1_5-3b", _PUBLISHED_REPOSITORY)

# What GGUF file names call the encodings; those of K-quants come in mixtures, whose size follows.
_NAMES_IN_FILES = {
    "float32": ("f32", "fp32", "float32"),
    "float16": ("f16", "fp16", "float16"),
    "bfloat16": ("bf16", "bfloat16"),
}
_MIXTURE = "(_(xxs|xs|s|m|l|xl))?"
# Names that an error lists.
_MOST_TOLD = 12
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
    argument: bool = False,
) -> Path:
    """The local file or directory of a model.

    `model` is a path, `hf://owner/repository/file` or a hub repository, `@revision` after the
    repository; `weight_path`, a path or `hf://…`, replaces its weights. `encoding` picks among a
    repository's files, `revision` is a branch, tag or commit. With `headers`, a folder, only the
    beginnings of weights that are not in the cache are downloaded, to files of full size in it.
    `argument`: the command names models by an argument, and errors do not speak of options.
    Raises UserError for what does not exist or cannot be downloaded.
    """
    if weight_path is not None:
        return _path_or_file(weight_path, revision, "--weight-path ", headers)
    option = "" if argument else "--model "
    if model.startswith(HUB_SCHEME) or exists(model):
        return _path_or_file(model, revision, option, headers)
    name, _, pinned = model.partition("@")
    revision = pinned or revision
    if name.endswith(_FILE_SUFFIXES) or not _REPOSITORY.fullmatch(name):
        raise _no_such_path(model, option)
    if name in _PUBLISHED_NAMES:
        file = _PUBLISHED_FILES.get(encoding or "", _PUBLISHED_DEFAULT)
        return download_file(_PUBLISHED_REPOSITORY, file, revision, headers)
    return _from_repository(name, encoding, revision, headers, argument)


def _path_or_file(name: str, revision: str | None, option: str, headers: Path | None) -> Path:
    """`option` is what the name was given with, and a space, or nothing."""
    if not name.startswith(HUB_SCHEME):
        if not exists(name):
            raise _no_such_path(name, option)
        return Path(name)
    match = _HUB_FILE.fullmatch(name)
    if match is None:
        raise UserError(
            f"{option}{name!r} names no file; expected hf://owner/repository/file: "
            "type the file's name after the repository"
        )
    revision = unquote(match["revision"] or "") or revision
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
        f"{option}{name!r} does not exist here; expected a file, a directory, "
        "owner/repository or hf://owner/repository/file: check the spelling"
    )


def _from_repository(
    repository: str, encoding: str | None, revision: str | None, headers: Path | None, argument: bool
) -> Path:
    """The same files as of a directory, and GGUF files in folders where there are no others."""
    files = list_files(repository, revision)
    names = [name for name in files if "/" not in name]
    at = f"@{quote(revision, '')}" if revision else ""
    address = f"hf://{repository}{at}/"
    index = f"model{SAFETENSORS_INDEX}"
    if "model.safetensors" in names:
        return _download_tensors(repository, ["model.safetensors"], revision, headers)
    if index in names:
        shards = index_shards(download_files(repository, [*_SMALL_FILES], revision) / index)
        return _download_tensors(repository, shards, revision, headers)
    if tensors := model_files(names, ".safetensors"):
        return _download_tensors(
            repository, split_parts(_choose(repository, tensors, None, address, argument)), revision, headers
        )
    ggufs = model_files(names, ".gguf")
    if not ggufs and any(name.startswith("pytorch_model") for name in names):
        return _download_pickles(repository, revision, argument)
    if ggufs := ggufs or model_files(files, ".gguf"):
        return download_file(repository, _choose(repository, ggufs, encoding, address, argument), revision, headers)
    if "adapter_config.json" in names:
        raise UserError(
            f"the hub repository {repository} holds a LoRA adapter; expected a whole model: type `hf download "
            f"{repository} --local-dir DIR`, then `replit convert BASE NEW.gguf --adapter DIR` with the model that it "
            "was trained on"
        )
    held = ", ".join(files[:_MOST_TOLD]) or "nothing"
    raise UserError(
        f"the hub repository {repository} holds {held}; expected model.safetensors, its shards, a .gguf file or "
        "pytorch_model.bin: check its name"
    )


def _download_tensors(repository: str, names: list[str], revision: str | None, headers: Path | None) -> Path:
    if headers is None:
        folder = download_files(repository, [*_SMALL_FILES, *names], revision)
        for name in names:  # the library passes over what is missing
            if not exists(folder / name):
                _translated(
                    partial(_listed_by_hub, repository, revision), repository, revision
                )  # if it cannot be reached
                raise _missing(repository, name)
        return folder
    for file in download_files(repository, [*_SMALL_FILES], revision).iterdir():
        if file.name not in names:
            (headers / file.name).symlink_to(file.resolve())
    _download_headers(repository, names, revision, headers)
    return headers


def _download_pickles(repository: str, revision: str | None, argument: bool) -> Path:
    if find_spec("torch"):
        return download_files(repository, [*_SMALL_FILES, "pytorch_model*"], revision)
    convert = "" if argument else f", or `replit convert {repository} model.gguf` where torch is"
    raise UserError(
        f"{repository} holds PyTorch files only and torch is not installed; type `pip install torch` and this "
        f"again{convert}"
    )


def _choose(repository: str, names: list[str], encoding: str | None, address: str, argument: bool) -> str:
    """The only file, or the GGUF file named after the encoding, or one that can be converted to it."""
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
        f"the hub repository {repository} holds {', '.join(names[:_MOST_TOLD])}; expected {expected}: type "
        f"{'' if argument else '--weight-path '}{address}{names[0]}{' in its place' if argument else ''}"
    )


def encoding_in_name(name: str) -> str | None:
    """The encoding that a GGUF file's name states, None if it states none."""
    stem = name.lower().removesuffix(".gguf")
    for encoding in Encoding:
        for text in _NAMES_IN_FILES.get(encoding.value, (encoding.value,)):
            mixture = _MIXTURE if text.endswith("_k") else ""
            if re.search(rf"(?<![a-z0-9]){text}{mixture}(?![a-z0-9_])", stem):
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
            if not any(name.endswith(_WEIGHTS) for name in cached):  # nothing, or a download that was broken off
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

    parts = split_parts(name)

    def is_cached() -> bool:
        from huggingface_hub import try_to_load_from_cache

        if isinstance(try_to_load_from_cache(repository, name, revision=revision), str):
            return True
        _listed_by_hub(repository, revision)  # says at once what is wrong with the connection
        return False

    if not _translated(is_cached, repository, revision, name) and headers is not None:
        return _download_headers(repository, parts, revision, headers)

    def downloaded(part: str) -> Path:
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(repository, part, revision=revision))

    paths = [_translated(partial(downloaded, part), repository, revision, part) for part in parts]
    return paths[0]


def _download_headers(repository: str, names: Sequence[str], revision: str | None, folder: Path) -> Path:
    """Files of full size in `folder`: _HEADER_BYTES as the hub has them, then a hole. Returns the first's path."""
    for name in names:
        _translated(partial(_download_header, repository, name, revision, folder), repository, revision, name)
    return folder / names[0]


def _download_header(repository: str, name: str, revision: str | None, folder: Path) -> None:
    from huggingface_hub import get_hf_file_metadata, get_session, get_token, hf_hub_url, try_to_load_from_cache

    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    cached = try_to_load_from_cache(repository, name, revision=revision)
    if isinstance(cached, str):
        path.symlink_to(Path(cached).resolve())
        return
    wanted = {"Range": f"bytes=0-{_HEADER_BYTES - 1}", "Accept-Encoding": "identity"}
    if (token := get_token()) is not None:
        wanted["Authorization"] = f"Bearer {token}"
    url = hf_hub_url(repository, name, revision=revision)
    size = get_hf_file_metadata(url).size
    with get_session().stream("GET", url, headers=wanted, follow_redirects=True) as response, path.open("wb") as file:
        response.raise_for_status()
        for part in response.iter_raw():
            file.write(part[: _HEADER_BYTES - file.tell()])
            if file.tell() == _HEADER_BYTES:  # where ranges are not known, the rest of the file would follow
                break
        file.truncate(size)


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
        raise _missing(repository, str(name)) from error
    elif isinstance(error, errors.HFValidationError):
        text = f"{repository!r} cannot be a hub repository ({error}); expected owner/name: check it"
    elif isinstance(error, OSError) and error.errno in _LOCAL_ERRORS:
        text = f"cannot store {where} ({error.strerror}: {error.filename or 'the cache'}); expected "
        text += "room and permission there: free some space, or set HF_HOME"
    else:
        text = _unreachable(error, where)
    raise UserError(text) from error


def _missing(repository: str, name: str) -> UserError:
    expected = "one that it holds: check the name"
    if (parts := len(split_parts(name))) > 1:
        expected = f"all {parts} parts of that model: give another file or repository"
    return UserError(f"the hub repository {repository} has no file {name!r}; expected {expected}")


def _unreachable(error: Exception, where: str) -> str:
    from huggingface_hub import constants, errors

    if constants.HF_HUB_OFFLINE:
        return (
            f"{where} is not in the cache and HF_HUB_OFFLINE is set; expected its files there: "
            "unset HF_HUB_OFFLINE, or give a local file"
        )
    # The library wraps the reason in two layers of advice of its own.
    cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) else None
    reason = str(cause or error) or type(cause or error).__name__
    return (
        f"cannot download {where} ({reason[:200]}); expected the hub to answer or the files in its "
        "cache: check the connection, or give a local file"
    )
