"""The seal against CVE-2019-5736, without containers: a process seals itself, this one plays the attacker.

The attacker is stronger than any container: it is root on the host, shares all namespaces with its victim,
and has hold of /proc/PID/exe before the victim goes. The victims run from a copy of the interpreter,
because a file that somebody executes cannot be opened for writing (ETXTBSY), and this test is executed by
the original.
"""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from pyrunc.linux import _linux, flags
from tests.support.mounts import on_the_root_mount

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
PREAMBLE = """
import os, sys
sys.path.insert(0, sys.argv[1])
import pyrunc.linux._linux as _linux
from pyrunc.linux import flags
from pyrunc.errors import Failure
from pyrunc.apply import seal
"""
# A seccomp filter that refuses one system call with an errno, as a runtime inside a container may meet it.
REFUSE = """
import _struct
def refuse(number, error):
    program = _struct.pack("=HBBIHBBIHBBIHBBI", 0x20, 0, 0, 0, 0x15, 0, 1, number, 6, 0, 0, 0x50000 | error,
                           6, 0, 0, 0x7FFF0000)
    _linux.prctl(flags.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _linux.seccomp(flags.SECCOMP_SET_MODE_FILTER, 0, program)
"""
OPEN_TREE, MEMFD_CREATE = 428, {"x86_64": 319, "aarch64": 279, "riscv64": 279}.get(os.uname().machine, -1)

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs real root: clones mounts"),
]


@pytest.fixture(scope="module")
def interpreter() -> Iterator[str]:
    """A copy of the interpreter that nobody else executes.

    It lies on the mount of "/", where a path is the same before and after the seal: some tests seal twice.
    """
    with on_the_root_mount() as directory:
        yield shutil.copy2("/proc/self/exe", f"{directory}/python3")


@pytest.fixture
def victim(interpreter: str) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Start the interpreter on a piece of code; killed at the end if it still runs."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str) -> subprocess.Popen[str]:
        words = [interpreter, "-I", "-S", "-c", PREAMBLE + code, REPOSITORY]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def run(victim: Callable[[str], subprocess.Popen[str]]) -> Callable[[str], str]:
    """Run code to its end and return what it printed; a failure shows its traceback."""

    def finish(code: str) -> str:
        process = victim(code)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
        return out

    return finish


def line(process: subprocess.Popen[str]) -> str:
    """What the victim says next; its last words are shown if it is dead."""
    assert process.stdout is not None
    assert process.stderr is not None
    answer = process.stdout.readline()
    assert answer, process.stderr.read()
    return answer.strip()


def writable(fd: int) -> int:
    """0 if the file can be opened for writing through a descriptor of it, else the errno."""
    try:
        os.close(os.open(f"/proc/self/fd/{fd}", os.O_WRONLY))
    except OSError as error:
        return error.errno or -1
    return 0


WAIT = "print(how, flush=True)\npid = os.fork()\nsys.stdin.readline() if pid == 0 else os.waitpid(pid, 0)\n"


@pytest.mark.parametrize(
    ("code", "answer", "refusal"),
    [
        ("how = 'unsealed'", "unsealed", 0),  # or this test would show nothing
        ("how = seal.seal()", "bind", errno.EROFS),
    ],
)
def test_executable_after_its_last_execution(
    victim: Callable[[str], subprocess.Popen[str]], code: str, answer: str, refusal: int
) -> None:
    process = victim(f"{code}\n{WAIT}")
    assert line(process) == answer
    exe = os.open(f"/proc/{process.pid}/exe", os.O_PATH)
    assert writable(exe) == errno.ETXTBSY
    process.communicate("\n", timeout=30)
    assert writable(exe) == refusal
    os.close(exe)


def test_attacker_cannot_lift_the_read_only_flag(
    victim: Callable[[str], subprocess.Popen[str]], tmp_path: Path
) -> None:
    (tmp_path / "target").touch()
    process = victim(f"how = seal.seal()\n{WAIT}")
    line(process)
    exe = os.open(f"/proc/{process.pid}/exe", os.O_PATH)
    attempts: list[Callable[[], object]] = [
        lambda: _linux.mount_setattr(exe, "", flags.AT_EMPTY_PATH, 0, flags.MOUNT_ATTR_RDONLY, 0, -1),
        lambda: _linux.open_tree(exe, "", flags.OPEN_TREE_CLONE | flags.AT_EMPTY_PATH),
        lambda: _linux.mount(None, f"/proc/self/fd/{exe}", None, flags.MS_REMOUNT | flags.MS_BIND, None),
        lambda: _linux.mount(f"/proc/self/fd/{exe}", tmp_path / "target", None, flags.MS_BIND, None),
        lambda: _linux.fspick(exe, "", flags.FSPICK_EMPTY_PATH),
    ]
    for attempt in attempts:
        with pytest.raises(OSError, match="Invalid argument") as caught:
            attempt()
        assert caught.value.errno == errno.EINVAL
    process.communicate("\n", timeout=30)
    assert writable(exe) == errno.EROFS
    os.close(exe)


def test_every_mapped_file_is_read_only(victim: Callable[[str], subprocess.Popen[str]]) -> None:
    process = victim(f"import _ctypes, _socket, fcntl, select\nhow = seal.seal()\n{WAIT}")
    assert line(process) == "bind"
    folder = f"/proc/{process.pid}/map_files"
    names = os.listdir(folder)
    answers: dict[str, int] = {}
    for name in names:
        fd = os.open(f"{folder}/{name}", os.O_PATH)
        answers[os.readlink(f"{folder}/{name}")] = writable(fd)
        os.close(fd)
    process.communicate("\n", timeout=30)
    executable = [path for path in answers if path.endswith("/python3")]
    assert [answers.pop(path) for path in executable] == [errno.ETXTBSY]
    assert len(answers) >= 5  # libc, ld.so, the extension and the like
    assert set(answers.values()) == {errno.EROFS}, answers


def test_environment_is_gone_and_the_command_line_is_not(
    victim: Callable[[str], subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_ENGINE", "1")
    process = victim(f"before = os.environ['SECRET_OF_THE_ENGINE']\nseal.seal()\nhow = before\n{WAIT}")
    assert line(process) == "1"
    with open(f"/proc/{process.pid}/environ", "rb") as file:
        assert file.read() == b""
    with open(f"/proc/{process.pid}/cmdline", "rb") as file:
        assert file.read().split(b"\0")[1:4] == [b"-I", b"-S", b"-c"]
    process.communicate("\n", timeout=30)


def test_interpreter_works_afterwards(run: Callable[[str], str]) -> None:
    code = """
def work():
    import gc, json, re, decimal, ctypes
    junk = [[index, {}] for index in range(20000)]
    for item in junk:
        item[1]["self"] = item
    del junk
    assert gc.collect() > 1000
    text = json.dumps({str(index): [index] * 5 for index in range(1000)})
    assert json.loads(text)["999"] == [999] * 5
    assert re.sub("b+", "-", "abba" * 500).count("-") == 500
    assert str(decimal.Decimal(1) / 3).startswith("0.333")
    try:
        {}["missing"]
    except KeyError as error:
        assert error.args == ("missing",)
    return eval("sum(range(1000))")

print(seal.seal(), work(), flush=True)
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        print(work(), flush=True)
        os.execv("/bin/true", ["true"])
    assert os.waitpid(pid, 0)[1] == 0
"""
    assert run(code).split() == ["bind", "499500", "499500", "499500", "499500"]


@pytest.mark.slow
def test_a_hundred_times(run: Callable[[str], str]) -> None:
    """Each time in a fresh child, which has its memory from its parent as a container's init has."""
    code = """
import gc, json
sealed = 0
for turn in range(100):
    pid = os.fork()
    if pid == 0:
        before = sorted(os.listdir("/proc/self/fd"))
        how = seal.seal()
        again = seal._seal()
        after = sorted(os.listdir("/proc/self/fd"))
        gc.collect()
        good = json.loads(json.dumps([turn] * 100)) == [turn] * 100
        child = os.fork()
        if child == 0:
            os._exit(len(json.dumps(list(range(100)))) % 256)
        good = good and os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 390 % 256
        os._exit(0 if good and how == again == "bind" and before == after else 1)
    sealed += os.waitpid(pid, 0)[1] == 0
print(sealed)
"""
    assert run(code) == "100\n"


def test_content_of_all_mappings_stays(run: Callable[[str], str]) -> None:
    code = """
def contents():
    memory = os.open("/proc/self/mem", os.O_RDONLY)
    found = {}
    for line in seal._read("/proc/self/maps").splitlines():
        span, allowed, offset = line.split()[:3]
        if allowed[:2] == b"r-" and b"[" not in line:
            start, end = (int(number, 16) for number in span.split(b"-"))
            for page in range(start, end, 4096):
                found[page, allowed] = hash(os.pread(memory, 4096, page))
    os.close(memory)
    return found
before = contents()
seal.seal()
after = contents()
print(len(before) > 500, sum(after.get(page) != content for page, content in before.items()))
"""
    assert run(code) == "True 0\n"


def test_signals_wait_for_the_end(run: Callable[[str], str]) -> None:
    code = """
import _signal
caught = 0
def count(number, frame):
    global caught
    caught += 1
_signal.signal(_signal.SIGALRM, count)
_signal.setitimer(_signal.ITIMER_REAL, 0.0005, 0.0005)
while caught < 20:
    seal._seal()
_signal.setitimer(_signal.ITIMER_REAL, 0)
print(caught >= 20)
"""
    assert run(code) == "True\n"


def test_files_that_are_not_found_again_are_copied(run: Callable[[str], str], tmp_path: Path) -> None:
    """A library that was upgraded or deleted while it is in use, and one on a mount of its own."""
    same_mount = os.stat(tmp_path).st_dev == os.stat("/").st_dev
    odd = f"{tmp_path}/odd name " if same_mount else "/odd name "
    code = f"""
import mmap
maps = []
_linux.unshare(flags.CLONE_NEWNS)
_linux.mount(None, "/", None, flags.MS_REC | flags.MS_PRIVATE, None)
os.mkdir({str(tmp_path / "own")!r})
_linux.mount("tmpfs", {str(tmp_path / "own")!r}, "tmpfs", 0, None)
for path in ({str(tmp_path / "gone")!r}, {str(tmp_path / "own" / "file")!r}, {str(tmp_path / "odd name ")!r}):
    with open(path, "wb+") as file:
        file.write(path.encode() * 500)
        file.flush()
        maps.append((path, mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ)))
os.unlink({str(tmp_path / "gone")!r})
print(seal.seal(), *[content[:] == path.encode() * 500 for path, content in maps])
paths = [line.split(None, 5)[5:] for line in seal._read("/proc/self/maps").decode().splitlines()]
# The clone of a mount of its own has the file at its root; the deleted file has become memory.
print(["/file"] in paths, [{odd!r}] in paths, "gone" in str(paths))
"""
    assert run(code).splitlines() == ["bind True True True", "True True False"]


def test_in_a_user_namespace(run: Callable[[str], str]) -> None:
    """There the mounts below "/" are locked and it cannot be cloned: the directories of the files are."""
    code = """
_linux.unshare(flags.CLONE_NEWUSER | flags.CLONE_NEWNS)
print(seal.seal(), os.path.basename(os.readlink("/proc/self/exe")))
"""
    assert run(code) == "bind python3\n"


class TestFallback:
    BODY = """
print(how, sys.argv[2:], os.environ.get("KEPT"), os.readlink("/proc/self/exe"), flush=True)
"""

    @pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS, errno.EINVAL])
    def test_sealed_copy_is_executed(
        self, victim: Callable[[str], subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch, error: int
    ) -> None:
        monkeypatch.setenv("KEPT", "yes")
        process = victim(f"{REFUSE}\nrefuse({OPEN_TREE}, {error})\nhow = seal.seal()\n{self.BODY}\n{WAIT}")
        assert line(process) == "memfd [] yes /memfd:pyrunc (deleted)"
        exe = os.open(f"/proc/{process.pid}/exe", os.O_PATH)
        process.communicate("\n", timeout=30)
        writer = os.open(f"/proc/self/fd/{exe}", os.O_WRONLY)
        with pytest.raises(PermissionError):
            os.write(writer, b"x")
        with pytest.raises(PermissionError):
            os.ftruncate(writer, 0)
        with pytest.raises(PermissionError):
            mmap.mmap(writer, 4096, mmap.MAP_SHARED, mmap.PROT_WRITE)
        os.close(writer)
        os.close(exe)

    def test_more_than_one_thread(self, run: Callable[[str], str]) -> None:
        code = """
import _thread
if not os.readlink("/proc/self/exe").startswith("/memfd:"):
    lock = _thread.allocate_lock()
    lock.acquire()
    _thread.start_new_thread(lock.acquire, ())
print(seal.seal())
"""
        assert run(code) == "memfd\n"

    def test_deleted_executable(self, interpreter: str, tmp_path: Path) -> None:
        copy = tmp_path / "python3"
        shutil.copy2(interpreter, copy)
        code = "import os\nos.path.exists(sys.argv[2]) and os.unlink(sys.argv[2])\nprint(seal.seal())"
        words = [str(copy), "-I", "-S", "-c", PREAMBLE + code, REPOSITORY, str(copy)]
        assert subprocess.check_output(words, text=True) == "memfd\n"

    def test_nothing_works(self, run: Callable[[str], str]) -> None:
        code = f"""{REFUSE}
refuse({OPEN_TREE}, 1)
refuse({MEMFD_CREATE}, 38)
try:
    seal.seal()
except Failure as failure:
    print(failure.text())
"""
        said = run(code)
        assert said.startswith("seal: cannot protect the interpreter /")
        assert (
            "sealing it in place: Operation not permitted; running a sealed copy: function not impl" in said
        )

    @pytest.mark.parametrize(("owner", "answer"), [(0, "unwritable"), (65534, "memfd")])
    def test_unprivileged(self, interpreter: str, tmp_path: Path, owner: int, answer: str) -> None:
        """What root owns no user namespace of a user maps; a user's own interpreter is sealed in memory."""
        home = tmp_path / "home"
        home.mkdir()
        shutil.copy2(interpreter, home / "python3")
        shutil.copytree(f"{REPOSITORY}/pyrunc", home / "pyrunc")
        os.chown(home / "python3", owner, owner)
        code = "print(seal.seal())"
        for path in (home, *home.parents):
            if path.stat().st_mode & 0o001 == 0 and str(path).startswith(str(tmp_path.parents[2])):
                path.chmod(path.stat().st_mode | 0o011)

        def nobody(*words: str) -> subprocess.CompletedProcess[str]:
            python = [str(home / "python3"), "-I", "-S", "-c", *words]
            return subprocess.run(
                python,
                capture_output=True,
                text=True,
                check=False,
                user=65534,
                group=65534,
                extra_groups=[],
                cwd="/",
            )

        if nobody("pass").returncode:
            pytest.skip("the interpreter's libraries lie in a place that other users cannot read")
        done = nobody(PREAMBLE + code, str(home))
        assert (done.stdout, done.stderr) == (f"{answer}\n", "")


class TestExchangeArguments:
    @pytest.mark.parametrize(
        ("mapping", "error"),
        [
            ((4096, 4096, 0, 1, False, -1), ValueError),
            ((8192, 4096, 0, 1, False, -1), ValueError),
            ((4097, 8192, 0, 1, False, -1), ValueError),
            ((4096, 8193, 0, 1, False, -1), ValueError),
            ((4096, 8192, 5, 1, False, -1), ValueError),
            ((4096, 8192, 0, 1, True, -1), ValueError),
            ((4096, 8192, 0, 1, False), TypeError),
            ("mapping", TypeError),
            ((-4096, 8192, 0, 1, False, -1), OverflowError),
        ],
    )
    def test_refused(self, mapping: object, error: type[Exception]) -> None:
        with pytest.raises(error):
            _linux.exchange_mappings([mapping], -1)  # type: ignore[list-item]

    def test_unreadable_pagemap_changes_nothing(self) -> None:
        memory = mmap.mmap(-1, mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory[:4] = b"mine"
        with open("/proc/self/maps", encoding="utf-8") as file:
            spans = [
                row.split()[0].split("-")
                for row in file
                if row.split()[1] == "rw-p" and len(row.split()) == 5
            ]
        span = next((int(start, 16), int(end, 16)) for start, end in spans)
        with pytest.raises(OSError, match="Bad file") as caught:
            _linux.exchange_mappings([(*span, 0, 3, False, 0)], -1)
        assert caught.value.errno == errno.EBADF
        assert memory[:4] == b"mine"
        memory.close()

    def test_layout_is_checked_by_the_kernel(self) -> None:
        with pytest.raises(OSError, match=r"\[Errno") as caught:
            _linux.set_mm_map((0,) * 10, -1)
        assert caught.value.errno in (errno.EINVAL, errno.EPERM)
