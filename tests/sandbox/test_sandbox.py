"""Programs that try to get out of the sandbox, or to take more than their share; under each kind of
walls that this machine has."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from logpi.sandbox import (
    LocalSandbox,
    ProgramLimits,
    SandboxError,
    launch,
    local,
    run_python,
)
from logpi.sandbox.syscalls import NUMBERS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is for Linux")

SHORT = ProgramLimits(seconds=1.0)
WALLS = ["landlock", *(["bubblewrap"] if shutil.which("bwrap") else [])]


@pytest.fixture(scope="module", params=WALLS)
def box(request):
    made = LocalSandbox(request.param)
    try:
        assert made.start() == request.param
    except SandboxError as error:
        pytest.skip(str(error))
    yield made
    made.close()


# --- it runs programs ---


def test_a_script_runs_as_scripts_do(box: LocalSandbox) -> None:
    code = """
import atexit, sys, threading
atexit.register(lambda: print("bye"))
if __name__ == "__main__":
    threading.Thread(target=lambda: print(input()[::-1])).start()
"""
    result = box.run(code, "olleh\n")
    assert (result.stdout, result.status, result.exit_code) == ("hello\nbye\n", "ok", 0)


@pytest.mark.parametrize(
    ("code", "status", "exit_code"),
    [
        ("import sys; sys.exit(3)", "error", 3),
        ("import sys; sys.exit('no')", "error", 1),
        ("1/0", "error", 1),
        ("def", "error", 1),
        ("import os; os._exit(0)", "ok", 0),
        ("import os; os.abort()", "killed", None),
        ("import ctypes; ctypes.string_at(1)", "killed", None),
    ],
)
def test_how_it_ended(box: LocalSandbox, code: str, status: str, exit_code: int | None) -> None:
    result = box.run(code)
    assert (result.status, result.exit_code) == (status, exit_code)


def test_a_traceback_shows_the_program_alone(box: LocalSandbox) -> None:
    error = box.run("x = 1\nraise KeyError('gone')").stderr
    assert (
        "line 2" in error
        and "KeyError: 'gone'" in error
        and "zygote" not in error
        and "jobs" not in error
    )


def test_runs_share_nothing(box: LocalSandbox) -> None:
    box.run("import builtins; builtins.x = 1; open('/tmp/x', 'w').write('1')")
    assert box.run(
        "import os; print(os.listdir('/tmp') if os.access('/tmp', os.W_OK) else []); x"
    ).stdout in (
        "[]\n",
        "",
    )


def test_many_at_once(box: LocalSandbox) -> None:
    with ThreadPoolExecutor(8) as threads:
        results = list(
            threads.map(lambda i: box.run(f"print({i} * input().count('a'))", "aa"), range(24))
        )
    assert [r.stdout for r in results] == [f"{2 * i}\n" for i in range(24)]


# --- limits ---


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import time; time.sleep(60)",
        "9**9**9**9",
        "input() or 0\nwhile 1: pass",
    ],
)
def test_time(box: LocalSandbox, code: str) -> None:
    start = time.monotonic()
    assert box.run(code, "\n", SHORT).status == "timeout"
    assert time.monotonic() - start < 5


def test_threads_cannot_buy_cpu_time(box: LocalSandbox) -> None:
    start = (
        "import threading, time\nfor i in range({}): threading.Thread(target={},"
        " daemon=True).start()"
    )
    spin = start.format(4, "exec, args=('while 1: pass',)") + "\nwhile 1: pass"
    assert box.run(spin, limits=SHORT).status == "timeout"
    assert "can't start new thread" in box.run(start.format(1000, "time.sleep, args=(9,)")).stderr


@pytest.mark.parametrize(
    "code",
    ["x = bytearray(4 << 30)", "x = [0]\nwhile 1: x += x", "import mmap; mmap.mmap(-1, 4 << 30)"],
)
def test_memory(box: LocalSandbox, code: str) -> None:
    result = box.run(code, limits=ProgramLimits(seconds=10))
    assert result.status == "memory" or "Cannot allocate memory" in result.stderr


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_endless_output(box: LocalSandbox, stream: str) -> None:
    result = box.run(
        f"import sys\nwhile 1: sys.{stream}.write('x' * 1000)", limits=ProgramLimits(output=5_000)
    )
    assert result.status == "output" and len(getattr(result, stream)) == 5_000


@pytest.mark.parametrize(
    "code",
    [
        "import os\nwhile True: os.fork()",
        "import subprocess; subprocess.run(['/bin/true'])",
        "import os; os.execv('/bin/sh', ['sh'])",
        "import os; os.posix_spawn('/bin/true', ['true'], {})",
    ],
)
def test_no_other_process(box: LocalSandbox, code: str) -> None:
    result = box.run(code)
    assert result.status == "error" and "PermissionError" in result.stderr


def test_big_files_do_not_fit(box: LocalSandbox) -> None:
    one = "f = open('/tmp/x', 'wb')\nfor i in range(64): f.write(bytes(1 << 20))\nf.flush()"
    many = "for i in range(64):\n with open(f'/tmp/{i}', 'wb') as f: f.write(bytes(1 << 20))"
    for code in (one, many):
        result = box.run(code, limits=ProgramLimits(files=8 << 20))
        assert result.status in ("error", "killed") and result.exit_code != 0


def test_limits_must_be_limits() -> None:
    with pytest.raises(ValueError, match="memory must be positive"):
        ProgramLimits(memory=0)


# --- walls ---


@pytest.fixture(scope="module")
def secret(tmp_path_factory):
    """A file that everyone may read, write and find, outside."""
    path = Path("/var/tmp") / f"logpi-secret-{os.getpid()}"
    path.write_text("the secret")
    path.chmod(0o666)
    yield path
    path.unlink(missing_ok=True)


@pytest.mark.parametrize(
    "attempt",
    [
        "print(open(PATH).read())",
        "open(PATH, 'w').write('x')",
        "os.chmod(PATH, 0)",
        "os.unlink(PATH)",
        "os.rename(PATH, PATH + '2')",
        "os.truncate(PATH, 0)",
        "os.utime(PATH, (0, 0))",
        "os.link(PATH, '/tmp/x'); print(open('/tmp/x').read())",
        "os.symlink(PATH, '/tmp/y'); print(open('/tmp/y').read())",
        "print(os.listdir('/var/tmp'))",
        "print(open('/proc/self/environ').read())",
        "print(open('/etc/passwd').read())",
        "open('/dev/shm/x', 'w')",
    ],
)
def test_no_file_outside(box: LocalSandbox, secret: Path, attempt: str) -> None:
    before = secret.stat()
    result = box.run(f"import os\nPATH = {str(secret)!r}\n{attempt}")
    assert result.status == "error" and result.stdout == ""
    assert secret.read_text() == "the secret" and secret.stat().st_mode == before.st_mode
    assert secret.stat().st_mtime == before.st_mtime


def test_no_environment(box: LocalSandbox, monkeypatch) -> None:
    monkeypatch.setenv("LOGPI_TEST_SECRET", "hidden")
    assert "hidden" not in box.run("import os; print(os.environ)").stdout


def test_no_network(box: LocalSandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for kind in (
            "AF_INET, socket.SOCK_STREAM",
            "AF_INET, socket.SOCK_DGRAM",
            "AF_UNIX, socket.SOCK_STREAM",
        ):
            result = box.run(f"import socket\nsocket.socket(socket.{kind})")
            assert result.status == "error" and "PermissionError" in result.stderr
        assert (
            box.run(f"import socket; socket.create_connection(('127.0.0.1', {port}))").status
            == "error"
        )


@pytest.mark.parametrize(
    "attempt",
    [
        "os.kill(os.getppid(), 9)",
        "os.kill(0, 9)",
        "os.kill(-1, 9)",
        "os.killpg(os.getpgid(os.getppid()), 9)",
        "signal.pidfd_send_signal(os.pidfd_open(os.getppid()), 9)",
        "fcntl.fcntl(0, fcntl.F_SETOWN, os.getppid())",
        "fcntl.ioctl(0, 0x8901, b'1234')",
        "resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (0, 0))",
        "os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
        "c(101, 16, os.getppid(), 0, 0)",  # ptrace
        "c(310, os.getppid(), 0, 0, 0, 0, 0)",  # process_vm_readv
        "c(425, 1, 0)",  # io_uring_setup
        "c(272, 0x10000000)",  # unshare, a user namespace
        "c(321, 0, 0, 0)",  # bpf
        "c(319, b'x', 0)",  # memfd_create
        "c(29, 1, 4096, 0o1000)",  # shmget
    ],
)
def test_no_reach_to_other_processes_or_the_kernel(box: LocalSandbox, attempt: str) -> None:
    call = """
def c(number, *args):
    if libc.syscall(number, *args) < 0:
        raise OSError(ctypes.get_errno(), "refused")
    print("done")
"""
    imports = (
        "import os, signal, fcntl, resource, ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
    )
    result = box.run(f"{imports}{call}{attempt}")
    assert result.status == "error" and result.stdout == "" and "Error" in result.stderr
    assert box.run("print('alive')").stdout == "alive\n"


def test_a_program_may_signal_itself(box: LocalSandbox) -> None:
    assert box.run("import os; os.kill(os.getpid(), 15)").status == "killed"


def test_limits_cannot_be_raised(box: LocalSandbox) -> None:
    code = "import resource as r; r.setrlimit(r.RLIMIT_AS, (r.RLIM_INFINITY,) * 2)"
    assert box.run(code).status == "error"


@pytest.fixture(scope="module")
def mailbox():
    """A datagram socket of the host's, for everybody, as syslog's is."""
    path = f"/var/tmp/logpi-mail-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(path)
        os.chmod(path, 0o777)
        server.setblocking(False)
        yield path, server
    os.unlink(path)


@pytest.mark.parametrize(
    "attempt",
    [
        "a.sendto(b'x', PATH)",
        "a.sendmsg([b'x'], [], 0, PATH)",
        "a.sendmsg([b'x'])",
        "socket.send_fds(a, [b'x'], [0])",
        "a.connect(PATH)",
        "a.setsockopt(socket.SOL_SOCKET, 26, b'\\0' * 16)",  # SO_ATTACH_FILTER
        "a.setsockopt(socket.SOL_SOCKET, 50, 0)",  # SO_ATTACH_BPF
    ],
)
def test_no_word_and_no_file_to_a_socket_of_the_host(
    box: LocalSandbox, mailbox, attempt: str
) -> None:
    path, server = mailbox
    pair = (
        f"import socket\nPATH = {path!r}\na, b = socket.socketpair(socket.AF_UNIX,"
        " socket.SOCK_DGRAM)\n"
    )
    result = box.run(pair + attempt)
    assert result.status == "error" and "PermissionError" in result.stderr
    with pytest.raises(BlockingIOError):
        server.recv(1)


def test_a_program_may_talk_to_itself(box: LocalSandbox) -> None:
    """asyncio wakes itself through a pair of sockets."""
    assert (
        box.run(
            "import socket\na, b = socket.socketpair()\na.sendall(b'hi')\nprint(b.recv(9))"
        ).stdout
        == "b'hi'\n"
    )
    code = (
        "import asyncio\nasync def f():\n await asyncio.sleep(0.01)\n return await"
        " asyncio.to_thread(int, '5')\nprint(asyncio.run(f()))"
    )
    assert box.run(code).stdout == "5\n"


def test_packages_are_not_to_be_read(box: LocalSandbox) -> None:
    """Those beside the standard library are there, and shut."""
    import sysconfig

    stdlib, base = (
        sysconfig.get_path("stdlib"),
        {"base": sys.base_prefix, "platbase": sys.base_prefix},
    )
    packages = sysconfig.get_path("purelib", vars=base)
    files = [str(p) for p in Path(packages).rglob("*.py")][:1]
    if not files:
        pytest.skip("this Python has no packages of its own")
    assert box.run(f"print(open({files[0]!r}).read())").status == "error"
    assert box.run(f"print(len(open({stdlib + '/textwrap.py'!r}).read()))").status == "ok"
    assert (
        box.run(
            "import lzma, email.mime.text, xml.dom.minidom, zoneinfo;"
            " print(zoneinfo.ZoneInfo('UTC'))"
        ).stdout
        == "UTC\n"
    )


def test_the_threads_of_a_neighbour_are_not_ours(box: LocalSandbox) -> None:
    flood = (
        "import threading, time\nthreading.stack_size(32768)\nfor i in range(3000):\n try:"
        " threading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n except"
        " RuntimeError: pass\ntime.sleep(1)"
    )
    honest = (
        "import threading, time\nts = [threading.Thread(target=time.sleep, args=(0.2,)) for _ in"
        " range(32)]\nfor t in ts: t.start()\nfor t in ts: t.join()\nprint('done')"
    )
    if not box.facts["private_tmp"]:
        pytest.skip("no user namespaces here: threads are counted for all programs together")
    with ThreadPoolExecutor(4) as threads:
        hostile = [threads.submit(box.run, flood) for _ in range(2)]
        time.sleep(0.5)
        assert [r.stdout for r in threads.map(box.run, [honest] * 3)] == ["done\n"] * 3
        assert all(h.result().status == "ok" for h in hostile)


@pytest.mark.parametrize("wall", WALLS)
def test_any_umask(wall: str) -> None:
    before = os.umask(0o077)
    made = LocalSandbox(wall)
    try:
        assert (
            made.run(
                "import os; open('x', 'w').close() if os.access('.', os.W_OK) else 0; print(1)"
            ).stdout
            == "1\n"
        )
    except SandboxError as error:
        if wall == "bubblewrap" and "bubblewrap" in str(error):
            pytest.skip(str(error))
        raise
    finally:
        os.umask(before)
        made.close()


def test_without_namespaces_it_works_too(monkeypatch) -> None:
    """As in containers that forbid them: no private /tmp, and Landlock as the wall."""
    real = launch.sources
    edited = [(n, s.replace("kernel.user_namespace(", "kernel.no_namespace(")) for n, s in real()]
    edited = [
        (n, s + "\ndef no_namespace(_):\n    raise OSError\n" if n.endswith(".kernel") else s)
        for n, s in edited
    ]
    monkeypatch.setattr(launch, "sources", lambda: edited)
    made = LocalSandbox("landlock")
    made.start()
    assert made.facts["private_tmp"] is False
    assert (
        made.run("print(1)").stdout == "1\n" and made.run("open('/tmp/x', 'w')").status == "error"
    )
    assert made.judge("class A:\n x = 3", ["assert A().x == 3"]).status == "ok"
    read = (
        "import sysconfig, pathlib\nfor p in"
        " pathlib.Path(sysconfig.get_path('purelib')).glob('*/*.py'):\n print(p.read_text())"
    )
    assert made.run(read).stdout == "" and made.run("import email.mime.text").status == "ok"
    made.close()


# --- the sandbox itself ---


def test_it_works_in_threads_and_comes_back_from_the_dead(box: LocalSandbox) -> None:
    results: list[str] = []
    thread = threading.Thread(target=lambda: results.append(box.run("print(1)").stdout))
    thread.start()
    thread.join()
    assert box._server is not None
    os.killpg(box._server.process.pid, 9)
    box._server.process.wait()
    assert results == ["1\n"] and box.run("print(2)").stdout == "2\n"


def test_nothing_is_left_behind() -> None:
    made = LocalSandbox("landlock")
    made.start()
    assert made._server is not None
    before = len(os.listdir("/proc/self/fd"))
    for code in ("print(1)", "while 1: pass", "while 1: print(1)"):
        made.run(code, limits=ProgramLimits(seconds=0.3))
    assert len(os.listdir("/proc/self/fd")) == before
    server = made._server.process.pid
    assert wait_for(lambda: not Path(f"/proc/{server}/task/{server}/children").read_text())
    made.close()
    assert not Path(f"/proc/{server}").exists()


def test_too_many_open_files_is_an_error_and_not_a_wait(monkeypatch) -> None:
    """The fork server lives on, so waiting for its end would be for ever; and nothing that was
    opened stays open."""
    made = LocalSandbox("landlock")
    made.start()
    before, real, left = len(os.listdir("/proc/self/fd")), os.pipe, iter((True, True))

    def pipe() -> tuple[int, int]:
        if not next(left, False):
            raise OSError(errno.EMFILE, "Too many open files")
        return real()

    monkeypatch.setattr(os, "pipe", pipe)
    with pytest.raises(OSError, match="Too many open files"):
        made.run("print(1)")
    monkeypatch.undo()
    assert len(os.listdir("/proc/self/fd")) == before and made.run("print(1)").stdout == "1\n"
    made.close()


def wait_for(true, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not true():
        time.sleep(0.02)
    return true()


def test_walls_that_do_not_hold_are_refused(monkeypatch) -> None:
    """As if the kernel took the rules and ignored them: the start-up probe must see it."""
    real = local.launch
    monkeypatch.setattr(local, "launch", lambda backend: real("unsafe"))
    with pytest.raises(SandboxError, match="landlock: does not hold: a program read a file"):
        LocalSandbox("landlock").start()


def test_without_walls_it_refuses_and_says_what_to_do(monkeypatch) -> None:
    def nothing(backend: str):
        raise SandboxError(f"no {backend} today")

    monkeypatch.setattr(local, "launch", nothing)
    with pytest.raises(
        SandboxError, match="no bubblewrap today; landlock: no landlock today.*backend='unsafe'"
    ):
        LocalSandbox().start()
    with pytest.raises(ValueError, match="no sandbox is called 'docker'"):
        LocalSandbox("docker")


def test_other_systems_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(SandboxError, match="Linux .* alone, this is darwin"):
        LocalSandbox().start()


def test_unsafe_only_by_its_name() -> None:
    box = LocalSandbox("unsafe")
    assert box.run("print(open('/etc/passwd').read()[:4])").stdout == "root\n"
    assert box.run("x = bytearray(4 << 30)").status == "memory"
    box.close()


def test_the_tables_of_system_calls_agree_with_the_headers() -> None:
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if not header.exists():
        pytest.skip("no kernel headers here")
    numbers = dict(
        line.split()[1:3]
        for line in header.read_text().splitlines()
        if line.startswith("#define __NR_")
    )
    assert all(numbers[f"__NR_{name}"] == str(n) for name, n in NUMBERS["x86_64"].items())


def test_the_shared_one() -> None:
    assert run_python("print(6 * 7)").stdout == "42\n"


def test_it_dies_with_its_host() -> None:
    code = (
        "from logpi.sandbox import LocalSandbox; import os\n"
        "s = LocalSandbox('landlock'); s.start()\n"
        "print(s._server.process.pid, flush=True); os._exit(1)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert wait_for(lambda: not Path(f"/proc/{int(run.stdout)}").exists())
