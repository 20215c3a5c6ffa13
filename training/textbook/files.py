"""Files, folders and programs."""

import csv
import hashlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any


def read_file(path: str) -> str:
    """Return the text of a file."""
    with open(path) as file:
        return file.read()


def read_text(path: str) -> str:
    """Return the contents of a text file."""
    with open(path, encoding="utf-8") as f:
        return f.read()


def write_file(path: str, text: str) -> None:
    """Write a text to a file."""
    with open(path, "w") as file:
        file.write(text)


def append_to_file(path: str, text: str) -> None:
    """Append a text to a file."""
    with open(path, "a") as file:
        file.write(text)


def append_line(path: str, line: str) -> None:
    """Append a line to a file."""
    with open(path, "a") as file:
        file.write(line + "\n")


def read_lines(path: str) -> list[str]:
    """Return the lines of a file without their line ends."""
    with open(path) as file:
        return [line.rstrip("\n") for line in file]


def read_lines__strip(path: str) -> list[str]:
    """Read a file and return its lines."""
    with open(path) as f:
        return [line.strip() for line in f]


def read_lines__split(path: str) -> list[str]:
    """Return a list of the lines in a file."""
    with open(path) as f:
        return f.read().splitlines()


def write_lines(path: str, lines: list[str]) -> None:
    """Write lines to a file."""
    with open(path, "w") as file:
        for line in lines:
            file.write(line + "\n")


def count_lines(path: str) -> int:
    """Return the number of lines of a file."""
    with open(path) as file:
        return sum(1 for _ in file)


def count_words_in_file(path: str) -> int:
    """Return the number of words in a file."""
    with open(path) as file:
        return len(file.read().split())


def read_json(path: str) -> Any:
    """Return the data of a JSON file."""
    with open(path) as file:
        return json.load(file)


def load_json(path: str) -> Any:
    """Load data from a JSON file."""
    with open(path) as f:
        return json.load(f)


def write_json(path: str, data: Any) -> None:
    """Write data to a JSON file."""
    with open(path, "w") as file:
        json.dump(data, file, indent=2)


def save_json(data: Any, path: str) -> None:
    """Save data to a JSON file."""
    with open(path, "w") as f:
        json.dump(data, f, indent=4)


def load_config(path: str) -> dict[str, Any]:
    """Return the settings in a JSON file, or none if there is no file."""
    if not os.path.exists(path):
        return {}
    with open(path) as file:
        return json.load(file)


def read_csv(path: str) -> list[dict[str, str]]:
    """Return the rows of a CSV file as dictionaries."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def write_csv(path: str, rows: list[dict[str, Any]]) -> None:
    """Write dictionaries to a CSV file."""
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def read_bytes(path: str) -> bytes:
    """Return the bytes of a file."""
    with open(path, "rb") as file:
        return file.read()


def file_size(path: str) -> int:
    """Return the size of a file in bytes."""
    return os.path.getsize(path)


def file_exists(path: str) -> bool:
    """Return whether there is a file at a path."""
    return os.path.isfile(path)


def file_extension(path: str) -> str:
    """Return the extension of a path.

    >>> file_extension("a/b.txt")
    '.txt'
    """
    return os.path.splitext(path)[1]


def get_filename(path: str) -> str:
    """Return the name of a file without its folder.

    >>> get_filename("a/b.txt")
    'b.txt'
    """
    return os.path.basename(path)


def change_extension(path: str, extension: str) -> str:
    """Return a path with another extension.

    >>> change_extension("a/b.txt", ".md")
    'a/b.md'
    """
    return os.path.splitext(path)[0] + extension


def list_files(folder: str) -> list[str]:
    """Return the names of the files in a folder."""
    return [name for name in os.listdir(folder) if os.path.isfile(os.path.join(folder, name))]


def list_files__sorted(path: str) -> list[str]:
    """List the files of a directory."""
    return sorted(f for f in os.listdir(path) if os.path.isfile(os.path.join(path, f)))


def list_directories(path: str) -> list[str]:
    """Return the names of the folders in a folder."""
    return [name for name in os.listdir(path) if os.path.isdir(os.path.join(path, name))]


def find_files(folder: str, extension: str) -> list[str]:
    """Return the paths of all files with an extension, in a folder and those below it."""
    found = []
    for root, _, names in os.walk(folder):
        for name in names:
            if name.endswith(extension):
                found.append(os.path.join(root, name))
    return found


def find_python_files(folder: str) -> list[Path]:
    """Return all Python files in a folder and those below it."""
    return sorted(Path(folder).rglob("*.py"))


def ensure_dir(path: str) -> None:
    """Make a folder unless it is there."""
    os.makedirs(path, exist_ok=True)


def copy_file(source: str, destination: str) -> None:
    """Copy a file."""
    shutil.copy(source, destination)


def delete_file(path: str) -> bool:
    """Delete a file; return whether there was one."""
    if os.path.exists(path):
        os.remove(path)
        return True
    return False


def rename_file(old: str, new: str) -> None:
    """Rename a file."""
    os.rename(old, new)


def directory_size(path: str) -> int:
    """Return the size of all files in a folder in bytes."""
    total = 0
    for root, _, files in os.walk(path):
        for name in files:
            total += os.path.getsize(os.path.join(root, name))
    return total


def file_hash(path: str) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(65536):
            digest.update(block)
    return digest.hexdigest()


def hash_text(text: str) -> str:
    """Return the SHA-256 of a text.

    >>> hash_text("a")[:8]
    'ca978112'
    """
    return hashlib.sha256(text.encode()).hexdigest()


def search_in_file(path: str, word: str) -> list[str]:
    """Return the lines of a file in which a word occurs."""
    with open(path) as file:
        return [line.rstrip("\n") for line in file if word in line]


def grep(pattern: str, lines: list[str]) -> list[str]:
    """Return the lines in which a pattern occurs.

    >>> grep("a", ["ab", "c"])
    ['ab']
    """
    return [line for line in lines if pattern in line]


def replace_in_file(path: str, old: str, new: str) -> None:
    """Replace a text in a file."""
    with open(path) as file:
        text = file.read()
    with open(path, "w") as file:
        file.write(text.replace(old, new))


def head(path: str, n: int = 10) -> list[str]:
    """Return the first lines of a file."""
    lines = []
    with open(path) as file:
        for line in file:
            if len(lines) == n:
                break
            lines.append(line.rstrip("\n"))
    return lines


def tail(path: str, n: int = 10) -> list[str]:
    """Return the last lines of a file."""
    with open(path) as file:
        return file.read().splitlines()[-n:]


def is_older_than(path: str, seconds: float) -> bool:
    """Return whether a file was changed longer ago than so many seconds."""
    return time.time() - os.path.getmtime(path) > seconds


def human_size(size: float) -> str:
    """Return a number of bytes as people write it.

    >>> human_size(2048)
    '2.0 KB'
    """
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if size < 1024:
            return f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} PB"
