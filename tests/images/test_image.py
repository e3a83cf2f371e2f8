"""Properties of the real images."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from pathlib import Path

import pytest

from sandboxd.images.recipe import load_recipe
from sandboxd.images.seal import seal
from tests.images.conftest import of_python

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="images are built by root, and tried with chroot")

# Other systems' modules, and those that need a display, an interpreter to install, or another library.
NOT_THERE = {
    "_gdbm", "_msi", "_overlapped", "_scproxy", "_tkinter", "_winapi", "_wmi", "ensurepip", "idlelib", "msilib",
    "msvcrt", "nt", "tkinter", "turtle", "turtledemo", "winreg", "winsound",
}  # fmt: skip

IMPORT_ALL = """
import importlib.util, os, sys
for name in sorted(sys.stdlib_module_names - {absent}):
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:
        continue
    if spec is None:
        print(name, "missing")
    elif spec.cached and spec.has_location and spec.origin.endswith(".py"):
        if not os.path.exists(spec.cached):
            print(name, "not compiled")
"""


def run(tree: Path, *command: str, **variables: str) -> str:
    """Run a program in an image as the user of functions."""
    environ = {"PATH": "/var/lang/bin:/usr/local/bin:/usr/bin:/bin:/opt/bin", "LANG": "en_US.UTF-8", **variables}
    chroot = ["/usr/sbin/chroot", "--userspec=993:990", str(tree)]
    done = subprocess.run([*chroot, *command], env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_it_is_small(tree: Path, runtime: str) -> None:
    for options in ((), ("--apparent-size",)):
        du = subprocess.run(["du", "-sk", *options, tree], capture_output=True, text=True, check=True)
        assert int(du.stdout.split()[0]) <= (170 if runtime == "nodejs22.x" else 110) * 1024


def test_every_file_is_roots_plain_and_readable(tree: Path) -> None:
    exceptions = {tree / "usr/bin/catatonit": 0o711, tree / "tmp": 0o1777}
    for path in (tree, *tree.rglob("*")):
        found = path.lstat()
        assert (found.st_uid, found.st_gid) == (0, 0), path
        if stat.S_ISLNK(found.st_mode):
            continue
        assert stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode), path
        assert stat.S_IMODE(found.st_mode) in ({exceptions[path]} if path in exceptions else {0o755, 0o644}), path
        assert os.listxattr(path) == [], path


def test_its_name_is_the_digest_of_its_content(tree: Path, runtime: str) -> None:
    assert seal(tree, {0}, load_recipe(runtime).modes).digest == tree.name


def test_it_has_no_package_manager_compiler_or_documentation(tree: Path) -> None:
    names = {path.name for path in (tree / "usr/bin").iterdir()} | {path.name for path in (tree / "usr/sbin").iterdir()}
    unwanted = re.compile(
        r"(apt|dpkg|debconf|pip|perl|gcc|cc|c\+\+|g\+\+|ld$|as$|make|su$|sudo|mount|umount|passwd|openssl).*"
    )
    assert [name for name in names if unwanted.fullmatch(name)] == []
    for absent in (
        "boot", "etc/apt", "etc/hostname", "etc/machine-id", "etc/shadow", "sys", "usr/include", "usr/share/doc",
        "usr/share/man", "var/cache", "var/lib/apt", "var/lib/dpkg", "var/log",
    ):  # fmt: skip
        assert not (tree / absent).exists(), absent
    assert not list((tree / "usr/share").glob("locale/*"))
    assert not [path for path in tree.rglob("*") if path.suffix in (".a", ".h", ".o")]


def test_it_says_nothing_of_where_it_was_built(tree: Path) -> None:
    found = subprocess.run(
        ["grep", "-rlaE", r"\.building-|/tmp/(rootfs|scratch|build)/|sandboxd", tree], capture_output=True, text=True
    )
    assert found.stdout == ""


def test_mount_points_and_etc(tree: Path) -> None:
    for directory in ("dev", "mnt", "opt/lib", "proc", "run", "tmp", "var/task/lib"):
        assert os.listdir(tree / directory) == []
    # The loader remembers which directories of its path were missing, and a stem's code comes after its exec.
    assert os.listdir(tree / "opt") == os.listdir(tree / "var/task") == ["lib"]
    passwd = (tree / "etc/passwd").read_text().splitlines()
    assert "sbx_user1051:x:993:990::/home/sbx_user1051:/sbin/nologin" in passwd
    assert "sbx_user1051:x:990:" in (tree / "etc/group").read_text().splitlines()
    assert (tree / "etc/resolv.conf").read_text() == "nameserver 127.0.0.53\n"
    assert (tree / "etc/hosts").read_text() == "127.0.0.1 localhost\n"


@of_python
def test_the_whole_standard_library_is_there_and_compiled(tree: Path, runtime: str) -> None:
    assert run(tree, f"/usr/bin/{runtime}", "-c", IMPORT_ALL.format(absent=NOT_THERE)) == ""


@of_python
def test_compiled_files_are_never_checked_against_their_source(tree: Path, runtime: str) -> None:
    compiled = [*(tree / "usr/lib" / runtime).rglob("*.pyc"), *(tree / "var/runtime").rglob("*.pyc")]
    assert len(compiled) > 500
    for path in compiled:
        # PEP 552: bit 0 of the flags means by hash, bit 1 that the hash is compared with the source's.
        assert path.read_bytes()[4:8] == b"\x01\0\0\0", path
    sources = [path for place in ("usr/lib/" + runtime, "var/runtime") for path in (tree / place).rglob("*.py")]
    assert len(sources) == len(compiled)


@of_python
def test_what_functions_expect_of_python(tree: Path) -> None:
    script = """
import awslambdaric.bootstrap, runtime_client
import bz2, ctypes, curses, decimal, json, lzma, readline, sqlite3, ssl, zlib, zoneinfo, locale, mimetypes, pwd, socket
database = sqlite3.connect(":memory:")
assert database.execute("select 41 + 1").fetchone() == (42,)
database.close()
assert len(ssl.create_default_context().get_ca_certs()) > 100
assert ctypes.CDLL("libc.so.6").getuid() == 993 and ctypes.CDLL("libstdc++.so.6")
assert zoneinfo.ZoneInfo("Europe/Berlin").key == "Europe/Berlin"
assert pwd.getpwuid(993).pw_name == "sbx_user1051"
assert locale.setlocale(locale.LC_ALL, "") == "en_US.UTF-8"
assert mimetypes.guess_type("a.webp")[0] == "image/webp" and socket.getservbyname("https") == 443
print(awslambdaric.__version__)
"""
    assert run(tree, "/usr/bin/python3", "-W", "error", "-c", script, PYTHONPATH="/var/runtime").startswith("4.")


@pytest.mark.parametrize(
    ("command", "output"),
    [
        ("TZ=:UTC date +%Z", "UTC\n"),
        ("id -un", "sbx_user1051\n"),
        ("printf 'b\\na\\n' | sort | sed s/a/c/ | grep c | awk '{print NR, $1}'", "1 c\n"),
        ("bash -c 'echo $0'", "bash\n"),
        ("for name in gzip tar xargs; do command -v $name; done | tr '\\n' ' '",
         "/usr/bin/gzip /usr/bin/tar /usr/bin/xargs "),
        ("find / -xdev -name nothing-of-that-name", ""),
    ],
)  # fmt: skip
def test_what_functions_expect_of_a_shell(tree: Path, command: str, output: str) -> None:
    assert run(tree, "/bin/sh", "-c", command) == output


@of_python
def test_python_is_on_the_path(tree: Path) -> None:
    found = run(tree, "/bin/sh", "-c", "for name in python3 python; do command -v $name; done")
    assert found.split() == ["/var/lang/bin/python3", "/var/lang/bin/python"]


@pytest.mark.parametrize("runtime", ["nodejs22.x"], indirect=True, scope="session")
def test_what_functions_expect_of_node(tree: Path) -> None:
    script = """
const assert = require('assert');
assert.strictEqual(new Intl.NumberFormat('de').format(1234.5), '1.234,5');
assert(require('tls').rootCertificates.length > 100);
assert.strictEqual(require('os').userInfo().username, 'sbx_user1051');
assert.strictEqual(require('zlib').brotliDecompressSync(require('zlib').brotliCompressSync('x')).toString(), 'x');
assert.strictEqual(require('crypto').hash('sha256', 'x').length, 64);
new (require('node:sqlite').DatabaseSync)(':memory:').close();
assert([typeof fetch, typeof WebSocket, typeof structuredClone].every((kind) => kind === 'function'));
console.log(process.version);
"""
    assert run(tree, "/bin/sh", "-c", "command -v node") == "/var/lang/bin/node\n"
    assert re.fullmatch(r"v22\.\d+\.\d+\n", run(tree, "node", "--no-warnings", "-e", script))
    assert sorted(os.listdir(tree / "var/runtime")) == ["bootstrap", "bootstrap.mjs", "index.mjs", "rapid-client.node"]
    needed = subprocess.run(["readelf", "-d", tree / "var/runtime/rapid-client.node"], capture_output=True, text=True)
    assert "libcurl" not in needed.stdout and "NEEDED" in needed.stdout


@pytest.mark.parametrize("runtime", ["provided.al2023"], indirect=True, scope="session")
def test_without_a_language_there_is_curl_and_no_interpreter(tree: Path) -> None:
    assert run(tree, "/usr/bin/curl", "--version").startswith("curl ")
    assert not [*tree.glob("usr/bin/python*"), *tree.glob("usr/lib/python*"), *tree.glob("usr/bin/perl*")]
    assert os.listdir(tree / "var/runtime") == ["bootstrap"]


def test_links_lead_somewhere_inside(tree: Path) -> None:
    for path in tree.rglob("*"):
        if path.is_symlink():
            target = os.path.join("/", path.relative_to(tree).parent, os.readlink(path))
            assert os.path.lexists(f"{tree}{os.path.normpath(target)}"), f"{path} -> {target}"


def test_the_reaper_runs_but_cannot_be_read(tree: Path) -> None:
    child = subprocess.run(
        ["setpriv", "--reuid=993", "--regid=990", "--clear-groups", "cat", tree / "usr/bin/catatonit"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert child.returncode == 1 and "Permission denied" in child.stderr
    assert "catatonit" in run(tree, "/usr/bin/catatonit", "--version")
