"""Running programs: what comes back, what is refused, and that nothing is ever left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest

from machine.canonical import decode, encode
from machine.errors import Code, ConfigError, OtherIoError
from machine.io.exec import ExecResult, ExecTransport, exec_request
from machine.io.running_programs import noted
from machine.io.transport import Transport

pytestmark = pytest.mark.anyio


async def run(argv, *, allow=("/",), **options):
    request = decode(encode(exec_request(argv, **options)))
    response = await ExecTransport(allow).perform("exec", request)
    return ExecResult.from_json(decode(encode(response)))


async def failure(argv, **options):
    with pytest.raises(OtherIoError) as caught:
        await run(argv, **options)
    encode(caught.value.info.details)
    return caught.value


def sh(script):
    return ["sh", "-c", script]


def alive(pid):
    """Whether a process runs; a zombie whose parent is not us does not count."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def gone(pid):
    with anyio.fail_after(3):
        while alive(pid):  # noqa: ASYNC110 - another process sets no event
            await anyio.sleep(0.01)
    return True


def ended_children():
    """Return the id and the status of a child that has ended, (0, 0) where all live, None where there is none."""
    try:
        return os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None


@pytest.fixture(autouse=True, scope="module")
def _watcher():
    """Start what ends this process's programs if it dies: it holds a pipe to that from then on."""
    with noted():
        pass


@pytest.fixture(autouse=True)
def nothing_is_left_behind(_watcher):
    """Every test: the same descriptors after as before, and no child that nobody waited for."""
    open_before, children_before = set(Path("/proc/self/fd").iterdir()), ended_children()
    yield
    # a test before this one may have left a process of Python's own, which lives as long as this one
    assert ended_children() == children_before in {None, (0, 0)}
    assert set(Path("/proc/self/fd").iterdir()) <= open_before


# ---- what comes back


async def test_outputs_and_status_come_back():
    result = await run(sh("echo out; echo err >&2; exit 3"))
    assert (result.returncode, result.stdout, result.stderr) == (3, "out\n", "err\n")


async def test_no_shell_splits_or_expands_the_arguments():
    assert (await run(["printf", "%s|", "a b", "$HOME", "*", ""])).stdout == "a b|$HOME|*||"


async def test_bytes_that_are_not_text_come_back_exactly():
    result = await run(sh(r"printf '\377\000a'"))
    assert result.stdout_bytes == b"\xff\0a"
    assert result.stdout == "�\0a"


@pytest.mark.parametrize("stdin", ["grün", b"\xff\0", b"x" * 1024 * 1024, "", None], ids="tblen")
async def test_standard_input_reaches_the_program(stdin):
    expected = stdin.encode() if isinstance(stdin, str) else stdin or b""
    assert (await run(["cat"], stdin=stdin)).stdout_bytes == expected


async def test_a_program_that_does_not_read_its_input_is_no_error():
    assert (await run(["true"], stdin=b"x" * 1024 * 1024)).returncode == 0


async def test_input_that_only_a_grandchild_could_read_is_dropped_when_the_program_ends():
    result = await run(sh("sleep 60 >/dev/null 2>&1 & echo $!"), stdin=b"x" * 1024 * 1024, timeout=10)
    os.kill(int(result.stdout), signal.SIGKILL)
    assert await gone(int(result.stdout))


async def test_the_environment_is_inherited_and_added_to(monkeypatch):
    monkeypatch.setenv("MACHINE_A", "1")
    assert (await run(sh("echo $MACHINE_A$MACHINE_B"), env={"MACHINE_B": "2"})).stdout == "12\n"


async def test_the_program_runs_in_the_folder_given(tmp_path):
    assert (await run(["pwd"], cwd=tmp_path)).stdout.strip() == str(tmp_path.resolve())


async def test_a_program_ended_by_a_signal_has_its_negative_number_as_status():
    assert (await run(sh("kill -KILL $$"))).returncode == -signal.SIGKILL


async def test_check_returns_a_success_and_raises_for_a_failure_with_the_end_of_its_errors():
    result = await run(["true"])
    assert result.check() is result
    with pytest.raises(OtherIoError) as caught:
        (await run(sh("printf '%5000d' 0 >&2; printf END >&2; exit 7"))).check()
    assert caught.value.code == Code.EXEC_STATUS
    assert caught.value.info.details["returncode"] == 7
    assert caught.value.info.details["stderr_tail"].endswith("0END")
    assert len(caught.value.info.details["stderr_tail"]) == 2000


async def test_calls_run_at_the_same_time():
    started = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(run, ["sleep", "0.3"])
    assert time.perf_counter() - started < 1.2


# ---- which program


async def test_a_program_that_does_not_exist_is_not_found():
    for name in ("no-such-program-anywhere", "/no/such/program", "./no-such-program"):
        error = await failure([name])
        assert (error.code, error.info.retryable) == (Code.EXEC_NOT_FOUND, False)
        assert error.info.details == {"program": name}


async def test_a_file_that_is_not_executable_is_not_found(tmp_path):
    (tmp_path / "tool").write_text("#!/bin/sh\n")
    assert (await failure([str(tmp_path / "tool")])).code == Code.EXEC_NOT_FOUND


def make_tool(path, text="#!/bin/sh\necho tool\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


async def test_the_path_of_the_childs_environment_is_searched(tmp_path):
    make_tool(tmp_path / "bin/only-here")
    assert (await failure(["only-here"])).code == Code.EXEC_NOT_FOUND
    assert (await run(["only-here"], env={"PATH": str(tmp_path / "bin")})).stdout == "tool\n"
    assert (await failure(["sh"], env={"PATH": ""})).code == Code.EXEC_NOT_FOUND


async def test_relative_programs_and_search_paths_are_relative_to_the_childs_folder(tmp_path):
    make_tool(tmp_path / "bin/only-here")
    assert (await run(["bin/only-here"], cwd=tmp_path)).stdout == "tool\n"
    assert (await run(["only-here"], cwd=tmp_path, env={"PATH": "bin"})).stdout == "tool\n"


async def test_only_programs_under_an_allowed_prefix_run(tmp_path):
    tool = make_tool(tmp_path / "bin/tool")
    assert (await run([str(tool)], allow=[str(tmp_path / "bin")])).stdout == "tool\n"
    assert (await run([str(tool)], allow=[str(tool)])).stdout == "tool\n"
    for allow in ([], ["/nowhere"], [str(tmp_path / "bi")], [str(tmp_path / "bin/tool/x")]):
        error = await failure([str(tool)], allow=allow)
        assert (error.code, error.info.retryable) == (Code.EXEC_NOT_ALLOWED, False)
        assert error.info.details["allowed"] == allow


async def test_a_prefix_ends_where_a_path_component_ends(tmp_path):
    tool = make_tool(tmp_path / "binary/tool")
    (tmp_path / "bin").mkdir()
    assert (await failure([str(tool)], allow=[str(tmp_path / "bin")])).code == Code.EXEC_NOT_ALLOWED
    assert (await run([str(tool)], allow=[f"{tmp_path}/binary/"])).stdout == "tool\n"


async def test_links_and_dots_do_not_lead_out_of_an_allowed_prefix(tmp_path):
    tool = make_tool(tmp_path / "outside/tool")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/link").symlink_to(tool)
    for name in (f"{tmp_path}/bin/link", f"{tmp_path}/bin/../outside/tool"):
        assert (await failure([name], allow=[str(tmp_path / "bin")])).code == Code.EXEC_NOT_ALLOWED


async def test_an_allowed_prefix_may_itself_be_a_link(tmp_path):
    tool = make_tool(tmp_path / "real/tool")
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    assert (await run([str(tool)], allow=[str(tmp_path / "linked")])).stdout == "tool\n"


@pytest.mark.parametrize("allow", ["/usr/bin", ["bin"], [""]])
def test_an_allow_list_that_is_not_a_list_of_absolute_paths_is_refused(allow):
    with pytest.raises(ConfigError):
        ExecTransport(allow)


async def test_what_cannot_be_started_fails_with_the_reason(tmp_path):
    tool = make_tool(tmp_path / "tool", "\x7fELF nonsense")
    error = await failure([str(tool)])
    assert error.code == Code.EXEC_FAILED
    assert error.info.details == {"program": str(tool), "errno": "ENOEXEC"}
    missing = await failure(["true"], cwd=tmp_path / "missing")
    assert (missing.code, missing.info.details["errno"]) == (Code.EXEC_FAILED, "ENOENT")


# ---- limits


async def test_a_program_that_takes_too_long_is_killed():
    started = time.perf_counter()
    error = await failure(["sleep", "60"], timeout=0.2)
    assert (error.code, error.info.retryable) == (Code.EXEC_TIMEOUT, True)
    assert error.message == "'sleep' did not finish within 0.2 seconds"
    assert time.perf_counter() - started < 2


async def test_the_deadline_kills_the_whole_process_group(tmp_path):
    pid = tmp_path / "pid"
    error = await failure(sh(f"sleep 60 & echo $! > {pid}; wait"), timeout=0.3)
    assert error.code == Code.EXEC_TIMEOUT
    assert await gone(int(pid.read_text()))


async def test_a_program_that_ignores_requests_to_end_is_killed_all_the_same():
    assert (
        await failure(sh("trap '' TERM INT HUP; sleep 60; sleep 60"), timeout=0.2)
    ).code == Code.EXEC_TIMEOUT


async def test_a_grandchild_that_keeps_the_output_open_does_not_outlast_the_deadline(tmp_path):
    pid = tmp_path / "pid"
    started = time.perf_counter()
    assert (await failure(sh(f"sleep 60 & echo $! > {pid}"), timeout=0.3)).code == Code.EXEC_TIMEOUT
    assert time.perf_counter() - started < 2
    assert await gone(int(pid.read_text()))


@pytest.mark.skipif(shutil.which("setsid") is None, reason="needs setsid")
@pytest.mark.parametrize(
    ("kept", "after"), [("&", ""), ("&", "wait"), (">/dev/null 2>&1 &", "wait"), (">/dev/null 2>&1", "")]
)
async def test_a_grandchild_in_a_session_of_its_own_does_not_outlast_the_call(tmp_path, kept, after):
    pid = tmp_path / "pid"
    script = f"setsid sh -c 'echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 60' {kept} {after}"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, sh(script))
        with anyio.fail_after(5):
            while not pid.exists():  # noqa: ASYNC110 - another process sets no event
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    assert await gone(int(pid.read_text()))


async def test_a_program_that_does_not_read_cannot_block_the_call_past_its_deadline():
    assert (await failure(["sleep", "60"], stdin=b"x" * 1024 * 1024, timeout=0.2)).code == Code.EXEC_TIMEOUT


@pytest.mark.parametrize(("stream", "redirect"), [("stdout", ""), ("stderr", ">&2")])
async def test_a_program_that_writes_without_end_is_killed(stream, redirect):
    error = await failure(sh(f"yes {redirect}"), max_output=1000)
    assert (error.code, error.info.retryable) == (Code.EXEC_OUTPUT_TOO_LARGE, False)
    assert error.info.details == {"program": "sh", "stream": stream, "max_output": 1000}


async def test_output_of_exactly_the_limit_is_not_too_large():
    assert len((await run(sh("printf '%1000d' 0"), max_output=1000)).stdout_bytes) == 1000
    assert (await failure(sh("printf '%1001d' 0"), max_output=1000)).code == Code.EXEC_OUTPUT_TOO_LARGE
    assert (await run(["true"], max_output=0)).stdout == ""


async def test_cancelling_the_call_kills_the_process_group(tmp_path):
    pid = tmp_path / "pid"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, sh(f"sleep 60 & echo $! > {pid}.new; mv {pid}.new {pid}; wait"))
        with anyio.fail_after(5):
            while not pid.exists():  # noqa: ASYNC110 - the same
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    assert await gone(int(pid.read_text()))


async def test_cancelling_a_call_at_any_moment_leaves_nothing_behind():
    for delay in (0, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.01):
        with anyio.move_on_after(delay):
            await run(sh("cat; sleep 60"), stdin=b"x" * 100_000)


# ---- the request


def test_the_same_call_has_the_same_request_and_holds_only_what_matters():
    assert exec_request(["ls"]) == {"argv": ["ls"], "timeout": 60.0, "max_output": 1048576}
    assert exec_request(("ls",), stdin="", env={}, cwd=None) == exec_request(["ls"], stdin=b"")
    full = exec_request(["ls"], stdin=b"\xff", env={"A": "b"}, cwd=Path("/tmp"), timeout=5, max_output=7)
    assert encode(full) == (
        b'{"argv":["ls"],"cwd":"/tmp","env":{"A":"b"},"max_output":7,"stdin":{"base64":"/w=="},"timeout":5}'
    )


@pytest.mark.parametrize(
    ("argv", "options"),
    [
        ("ls -l", {}),
        (b"ls", {}),
        ([], {}),
        ([""], {}),
        (["ls", 1], {}),
        (["ls", b"x"], {}),
        (["ls\0"], {}),
        (["ls", "\ud800"], {}),
        ({"ls"}, {}),
        (None, {}),
        (["ls"], {"env": {"A": 1}}),
        (["ls"], {"env": {1: "A"}}),
        (["ls"], {"env": {"": "A"}}),
        (["ls"], {"env": {"A=B": "C"}}),
        (["ls"], {"env": {"A": "\0"}}),
        (["ls"], {"env": [("A", "B")]}),
        (["ls"], {"cwd": ""}),
        (["ls"], {"cwd": "\0"}),
        (["ls"], {"cwd": 1}),
        (["ls"], {"stdin": 1}),
        (["ls"], {"stdin": "\ud800"}),
        (["ls"], {"stdin": b"x" * (1024 * 1024 + 1)}),
        (["ls"], {"timeout": 0}),
        (["ls"], {"timeout": None}),
        (["ls"], {"timeout": float("nan")}),
        (["ls"], {"max_output": -1}),
        (["ls"], {"max_output": 1.5}),
    ],
)
def test_arguments_that_are_not_what_is_asked_for_are_refused(argv, options):
    with pytest.raises(OtherIoError) as caught:
        exec_request(argv, **options)
    assert caught.value.code == Code.IO_INVALID_REQUEST


def test_a_command_line_in_one_string_is_told_to_be_a_list():
    with pytest.raises(OtherIoError, match="must be a list of strings"):
        exec_request("git status")


@pytest.mark.parametrize(
    "request_",
    [
        None,
        {},
        {"argv": "ls"},
        {"argv": ["ls"], "timeout": "1", "max_output": 1},
        {"argv": ["\0"], "timeout": 1},
    ],
)
async def test_a_foreign_request_is_refused_when_performed(request_):
    with pytest.raises(OtherIoError) as caught:
        await ExecTransport().perform("exec", request_)
    assert caught.value.code == Code.IO_INVALID_REQUEST


async def test_another_namespace_is_not_served():
    with pytest.raises(OtherIoError) as caught:
        await ExecTransport().perform("exec.shell", exec_request(["ls"]))
    assert caught.value.code == Code.IO_UNKNOWN_NAMESPACE


async def test_a_program_is_an_effect_and_finds_the_idempotency_key_in_its_environment():
    transport = ExecTransport()
    assert isinstance(transport, Transport)
    request = exec_request(sh("echo $MACHINE_IDEMPOTENCY_KEY"))
    assert transport.is_effect("exec", request)
    keyed = transport.with_idempotency_key("exec", request, "key-1")
    assert "env" not in request
    assert (await transport.perform("exec", keyed))["stdout"] == {"text": "key-1\n"}
    own = exec_request(["ls"], env={"MACHINE_IDEMPOTENCY_KEY": "mine"})
    assert transport.with_idempotency_key("exec", own, "key-1") == own
    await transport.aclose()


def test_builders_and_views_import_no_http_library_and_no_event_loop():
    modules = ", ".join(f"machine.io.{name}" for name in ("exec", "http", "files", "clock", "entropy", "env"))
    heavy = "{'httpx', 'httpcore', 'ssl', 'asyncio.subprocess', 'rich'}"
    program = f"import sys, {modules}; print({heavy} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
