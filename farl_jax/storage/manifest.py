"""A checkpoint step's `metadata.json`: its content, and checksums to find damage.

It has the step's number, the caller's metadata and score, every leaf's shape and dtype, size and
CRC-32 of every file, and a CRC-32 of itself.
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from farl_jax.schema import Natural, SchemaError, Single, check, shown
from farl_jax.storage import json_files
from farl_jax.storage.files import write_text

FORMAT = 1
MANIFEST = "metadata.json"


class Body(TypedDict):
    """A manifest without its own CRC-32."""

    format: int
    step: Natural
    score: NotRequired[Single | None]
    metadata: dict[str, Any]
    items: dict[str, dict[str, str]]
    """Item -> leaf's path -> shape and dtype."""
    files: dict[str, tuple[Natural, Natural]]
    """File -> size in bytes, CRC-32."""


class CheckpointError(ValueError):
    """A checkpoint could not be saved or loaded. The message is one line."""


class Damaged(CheckpointError):
    """The files differ from the saved ones. An older step may still be intact."""


def write(step_folder: Path, body: Mapping[str, Any]) -> None:
    """Write `body` with sizes and checksums of the folder's files."""
    found = {name: [path.stat().st_size, crc_of(path)] for name, path in _files(step_folder)}
    body = {**body, "files": found}
    text = json.dumps({**body, "crc32": body_crc(body)}, indent=1)
    write_text(step_folder / MANIFEST, text)


def read(step_folder: Path, step: int) -> dict[str, Any]:
    """Read the body of `step`, and check its types.

    Raises:
        Damaged: missing, damaged, or of another step.
        CheckpointError: of another format.
    """
    path = step_folder / MANIFEST
    if not path.is_file():
        raise Damaged(f"{path}: missing")
    try:
        body = json_files.read(path, dict[str, Any])
        if body.pop("crc32", None) != body_crc(body):
            raise Damaged(f"{path}: damaged (its checksum differs)")
        if check(Natural, body.get("format"), "format") != FORMAT:
            raise CheckpointError(
                f"{path}: format must be {FORMAT}; got {shown(body['format'])}; "
                "use the farl-jax version that wrote it"
            )
        body = check(Body, body, "")
    except SchemaError as error:
        raise Damaged(f"{path}: damaged ({str(error).removeprefix(f'{path}: ')})") from error
    if body["step"] != step:
        raise Damaged(f"{path}: of step {body['step']:,}, but in the folder of step {step:,}")
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
    """CRC-32 of a manifest without its own CRC-32."""
    return zlib.crc32(json.dumps(body, sort_keys=True).encode())


def _files(step_folder: Path) -> list[tuple[str, Path]]:
    """(POSIX name, path) of every file of a step, except the manifest."""
    found = (path for path in sorted(step_folder.rglob("*")) if path.is_file())
    names = ((path.relative_to(step_folder).as_posix(), path) for path in found)
    return [(name, path) for name, path in names if name != MANIFEST]
