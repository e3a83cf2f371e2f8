"""Zips with bytes changed: the extractor takes or refuses them, and writes nothing beside its directory."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
import struct
import zipfile
from pathlib import Path

from hypothesis import strategies as st

from sandboxd.builder import extractor
from sandboxd.privsep.messages import UnpackStatus
from tests.fuzz.conftest import Fuzz

MAX_BYTES, MAX_ENTRIES = 200_000, 50
NAMES = st.sampled_from(
    ["a", "b", "a/b", "a/b/c", "./a", "a/", "..", "../x", "/x", "C:/x", "a\\b", "é", "\u202e", "n" * 256]
)
KINDS = st.sampled_from([0, stat.S_IFREG, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, 0o7000])
CONTENTS = st.sampled_from([b"", b"x", b"../../x", bytes(50_000), b"PK\x05\x06" + bytes(18), os.urandom(3000)])
NUMBERS = (0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)


@st.composite
def zips(draw: st.DrawFn) -> bytes:
    """A zip of a few entries, most of them sound, with some of its bytes or numbers changed, cut or doubled."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))) as archive:
        used = set()
        for name, kind, content in draw(st.lists(st.tuples(NAMES, KINDS, CONTENTS), min_size=1, max_size=4)):
            if name not in used:
                used.add(name)
                entry = zipfile.ZipInfo(name)
                entry.external_attr = (kind | 0o755) << 16
                archive.writestr(entry, content, archive.compression)
    data = bytearray(target.getvalue())
    records = [at for at in range(len(data) - 4) if data[at : at + 2] == b"PK"]
    for at, offset, change in draw(
        st.lists(st.tuples(st.integers(0, 20), st.integers(0, 60), st.integers(0, 299)), max_size=3)
    ):
        place = (records[at % len(records)] + offset) % len(data)
        if change < 256:
            data[place] = change
        elif change < 285:
            data[place : place + 4] = struct.pack("<I", NUMBERS[change % len(NUMBERS)])
        elif change < 292:
            del data[place : place + 10]
        else:
            data[place:place] = data[records[0] : place]
    return bytes(data)


def test_zips(fuzz: Fuzz, tmp_path: Path) -> None:
    counted: dict[UnpackStatus, int] = {}
    (tmp_path / "outside").mkdir()

    def body(package: bytes) -> None:
        place = tmp_path / "outside" / "tree"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        file, tree = os.memfd_create("package"), os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        held = set(os.listdir("/proc/self/fd"))
        try:
            os.write(file, package)
            status, size = extractor.extract(file, tree, MAX_BYTES, MAX_ENTRIES)
        finally:  # the extractor is a process of one package: its end closes what it had open
            for left in set(os.listdir("/proc/self/fd")) - held:
                with contextlib.suppress(OSError):  # the directory of /proc itself
                    os.close(int(left))
            os.close(file)
            os.close(tree)
        counted[status] = counted.get(status, 0) + 1
        written = 0
        for path in place.rglob("*"):
            about = path.lstat()
            assert stat.S_ISREG(about.st_mode) or stat.S_ISDIR(about.st_mode), path
            assert stat.S_IMODE(about.st_mode) & 0o7000 == 0
            written += about.st_size if stat.S_ISREG(about.st_mode) else 0
        assert written <= MAX_BYTES + extractor._OUTPUT
        assert status is not UnpackStatus.OK or written == size
        assert status is not UnpackStatus.FAILED, "an error that nobody thought of"
        assert os.listdir(tmp_path) == ["outside"] and os.listdir(tmp_path / "outside") == ["tree"]

    fuzz(body, zips())
    assert counted[UnpackStatus.OK] > 10 and len(counted) > 5, counted
