"""A checkpoint step's `metadata.json`: what was saved, and how one sees that it still is that.

It holds the step's number, the caller's metadata and score, every leaf's shape and dtype, size and
CRC-32 of every file, and a CRC-32 of itself.
"""

import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from farl_jax.storage.files import write_text

FORMAT = 1
MANIFEST = "metadata.json"
MOST_BYTES = 1 << 26
"""A larger file is no manifest: real ones have some ten thousand bytes."""


class CheckpointError(ValueError):
    """A checkpoint could not be saved or loaded. The message is one line: what, why, way out."""


class Damaged(CheckpointError):
    """What is on disk is not what was saved: an older step may still be good."""


def write(step_folder: Path, body: Mapping[str, Any]) -> None:
    """Write `body` with what is known of the folder's files."""
    found = {name: [path.stat().st_size, crc_of(path)] for name, path in _files(step_folder)}
    body = {**body, "files": found}
    text = json.dumps({**body, "crc32": body_crc(body)}, indent=1)
    write_text(step_folder / MANIFEST, text)


def read(step_folder: Path, step: int) -> dict[str, Any]:
    """The body written for `step`, complete and of the right types.

    Raises:
        Damaged: missing, or not what was written for this step.
        CheckpointError: of another format.
    """
    path = step_folder / MANIFEST
    try:
        if not path.is_file():
            raise Damaged(f"{path}: missing")
        if (size := path.stat().st_size) > MOST_BYTES:
            raise Damaged(f"{path}: damaged ({size:,} bytes are too many)")
        body = json.loads(path.read_bytes().decode("utf-8"))
        crc = body.pop("crc32")
        intact = crc == body_crc(body)
    except OSError as error:
        raise Damaged(f"{path}: cannot be read ({error.strerror})") from error
    except Damaged:
        raise
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise Damaged(f"{path}: damaged (not the JSON that was saved)") from error
    if not intact:
        raise Damaged(f"{path}: damaged (its checksum differs)")
    _check_manifest(body, path)
    if body["step"] != step:
        raise Damaged(f"{path}: of step {body['step']:,}, and lies in the folder of step {step:,}")
    return body


def check_files(step_folder: Path, saved: Mapping[str, list[int]], content: bool = True) -> None:
    """Compare the files on disk with the manifest's; without `content` only their sizes.

    Raises:
        Damaged: one is missing or differs.
    """
    present = dict(_files(step_folder))
    for name, (size, crc) in saved.items():
        if name not in present:
            raise Damaged(f"{step_folder / name}: missing")
        try:
            found = present[name].stat().st_size
            intact = not content or crc_of(present[name]) == crc
        except OSError as error:
            raise Damaged(f"{present[name]}: cannot be read ({error.strerror})") from error
        if found != size:
            raise Damaged(f"{present[name]}: damaged ({found} of {size} bytes)")
        if not intact:
            raise Damaged(f"{present[name]}: damaged (its checksum differs)")


def crc_of(path: Path) -> int:
    """CRC-32 of a file's bytes."""
    crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return crc


def body_crc(body: Mapping[str, Any]) -> int:
    """CRC-32 of all that a manifest says but for its own CRC-32."""
    return zlib.crc32(json.dumps(body, sort_keys=True).encode())


def _check_manifest(body: Any, path: Path) -> None:
    """Whether every field is there, and what it should be."""
    if _is_count(body.get("format")) and body["format"] != FORMAT:
        raise CheckpointError(
            f"{path}: checkpoint format {body['format']}, this version reads {FORMAT}; "
            "use the farl-jax version that wrote it"
        )
    score = body.get("score")
    good = {
        "format": _is_count(body.get("format")),
        "step": _is_count(body.get("step")),
        "score": score is None or (type(score) in (int, float) and math.isfinite(score)),
        "metadata": isinstance(body.get("metadata"), dict),
        "items": _maps(body.get("items"), lambda leaves: _maps(leaves, _is_text)),
        "files": _maps(body.get("files"), _is_entry),
    }
    for name, fits in good.items():
        if not fits:
            state = "of the wrong type" if name in body else "missing"
            raise Damaged(f"{path}: damaged ({name} is {state})")


def _maps(value: Any, fits: Any) -> bool:
    return isinstance(value, dict) and all(map(fits, value.values()))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_entry(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_count, value))


def _files(step_folder: Path) -> list[tuple[str, Path]]:
    """(POSIX name, path) of every file of a step but the manifest."""
    found = (path for path in sorted(step_folder.rglob("*")) if path.is_file())
    names = ((path.relative_to(step_folder).as_posix(), path) for path in found)
    return [(name, path) for name, path in names if name != MANIFEST]
