"""What a report reads of folders that may be anybody's: pictures, and folders that stay closed."""

import errno
import os
import struct
import zlib

import pytest
from PIL import Image

from experiments.report import write
from experiments.report.rows import Findings, collect
from tests.experiments.finished_runs import result, write_run


def chunk(kind, content):
    """A piece of a PNG file."""
    crc = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def header(width, height):
    """The beginning of a PNG of some size."""
    about = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", about)


PICTURES = {
    "a bomb": header(100_000, 100_000) + chunk(b"IDAT", zlib.compress(b"")),
    "many pixels": header(9_000, 9_000) + chunk(b"IDAT", zlib.compress(b"")),
    "much text": header(2, 2) + chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2_000_000))),
    "another format": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
    "a metafile": b"\xd7\xcd\xc6\x9a\0\0" + bytes(100),
    "rubbish": b"hello",
}


@pytest.mark.parametrize("kind", PICTURES)
def test_a_picture_that_is_none_of_ours_is_named_and_starts_no_program(tmp_path, kind, monkeypatch):
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("a program ran"))
    path, findings = tmp_path / "sheet.png", Findings()
    Image.new("RGB", (2000, 40)).save(path)
    assert write._small(path, findings).startswith(b"\xff\xd8") and not findings.left_out
    path.write_bytes(PICTURES[kind])
    assert write._small(path, findings) is None
    ((name, text),) = findings.left_out
    assert name == str(path) and text.startswith("no picture: ")


def test_a_folder_that_cannot_be_opened_is_named(tmp_path, monkeypatch):
    """Whoever runs the tests may be allowed to open everything."""
    good = write_run(tmp_path / "seed0", result("bounded_push", "farl", 0, 5, 50.0))
    (tmp_path / "closed" / "seed1").mkdir(parents=True)
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    findings = Findings()
    assert collect([tmp_path], (), findings) and good.is_dir()
    assert (str(tmp_path / "closed"), "cannot be read: Permission denied") in findings.left_out
