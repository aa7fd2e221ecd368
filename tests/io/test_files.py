"""Files: reads that never hang, and writes that are whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import anyio
import pytest

from machine.canonical import decode, encode
from machine.errors import Code, OtherIoError
from machine.io.files import FileContent, FileTransport, read_request, write_request
from machine.io.transport import Transport

pytestmark = pytest.mark.anyio


async def read(path, **options):
    request = decode(encode(read_request(path, **options)))
    return FileContent.from_json(decode(encode(await FileTransport().perform("file.read", request))))


async def write(path, data):
    return await FileTransport().perform("file.write", decode(encode(write_request(path, data))))


async def failure(call):
    with pytest.raises(OtherIoError) as caught:
        await call
    encode(caught.value.info.details)
    return caught.value


# ---- reading


@pytest.mark.parametrize("data", [b"", b"text\r\n", "grün \U0001f331".encode(), b"\xff\0\xfe", b"\0"])
async def test_what_is_read_is_exactly_what_is_there(tmp_path, data):
    (tmp_path / "f").write_bytes(data)
    assert (await read(tmp_path / "f")).bytes == data


async def test_a_large_file_is_read_whole_in_a_thread(tmp_path, monkeypatch):
    data = os.urandom(1_000_000)
    (tmp_path / "f").write_bytes(data)
    hops = []
    hop = anyio.to_thread.run_sync
    monkeypatch.setattr("anyio.to_thread.run_sync", lambda *args: hops.append(args) or hop(*args))
    assert (await read(tmp_path / "f")).bytes == data
    (tmp_path / "f").write_bytes(b"small")
    assert (await read(tmp_path / "f")).bytes == b"small"
    assert len(hops) == 1


async def test_text_is_the_content_when_it_is_utf8_and_an_error_otherwise(tmp_path):
    (tmp_path / "f").write_bytes("grün".encode())
    assert (await read(tmp_path / "f")).text == "grün"
    (tmp_path / "f").write_bytes(b"gr\xfcn")
    content = await read(tmp_path / "f")
    with pytest.raises(OtherIoError, match="is not UTF-8 text: byte 2 does not fit") as caught:
        _ = content.text
    assert caught.value.code == Code.FILE_FAILED


async def test_a_path_is_recorded_as_given_and_resolved_when_performed(tmp_path, monkeypatch):
    (tmp_path / "f").write_text("here")
    monkeypatch.chdir(tmp_path)
    assert read_request(Path("f"))["path"] == "f"
    content = await read("f")
    assert (content.path, content.text) == ("f", "here")


async def test_a_file_that_says_it_is_empty_and_is_not_is_read_whole():
    assert (await read("/proc/self/status")).text.startswith("Name:")


async def test_a_file_that_is_not_there_is_not_found(tmp_path):
    (tmp_path / "f").write_text("")
    for path in (tmp_path / "missing", tmp_path / "missing/f", tmp_path / "f/below"):
        error = await failure(read(path))
        assert (error.code, error.info.retryable) == (Code.FILE_NOT_FOUND, False)
        assert error.info.details["path"] == str(path)


async def test_a_file_that_may_not_be_read_is_denied(tmp_path, monkeypatch):
    (tmp_path / "f").write_text("")
    real = os.open

    def refusing(path, *args):
        if str(path).startswith(str(tmp_path)):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, *args)

    monkeypatch.setattr(os, "open", refusing)  # the tests may run as root, whom no mode stops
    for call in (read(tmp_path / "f"), write(tmp_path / "f", "x")):
        assert (await failure(call)).code == Code.FILE_DENIED


async def test_a_file_over_the_limit_is_too_large_and_one_at_the_limit_is_not(tmp_path):
    (tmp_path / "f").write_bytes(b"12345")
    assert (await read(tmp_path / "f", max_bytes=5)).bytes == b"12345"
    error = await failure(read(tmp_path / "f", max_bytes=4))
    assert (error.code, error.info.details["max_bytes"]) == (Code.FILE_TOO_LARGE, 4)
    assert (await failure(read("/proc/self/status", max_bytes=4))).code == Code.FILE_TOO_LARGE


async def test_what_is_not_a_regular_file_is_refused_and_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", "/dev/zero"):
        with anyio.fail_after(2):
            error = await failure(read(path))
        assert error.code == Code.FILE_FAILED
        assert error.message == f"{path} is not a regular file"


async def test_other_troubles_are_failures_with_their_reason(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    assert (await failure(read(tmp_path / "loop"))).info.details["errno"] == "ELOOP"
    error = await failure(read(tmp_path / ("x" * 300)))
    assert (error.code, error.info.details["errno"]) == (Code.FILE_FAILED, "ENAMETOOLONG")


# ---- writing


@pytest.mark.parametrize("data", ["", "grün", b"\xff\0", b"x" * 500_000], ids="etbl")
async def test_what_is_written_is_there_and_counted(tmp_path, data):
    expected = data.encode() if isinstance(data, str) else data
    assert await write(tmp_path / "f", data) == {"bytes": len(expected)}
    assert (tmp_path / "f").read_bytes() == expected
    assert list(tmp_path.iterdir()) == [tmp_path / "f"]


async def test_a_new_file_has_the_mode_that_the_umask_leaves(tmp_path):
    before = os.umask(0o027)
    try:
        await write(tmp_path / "f", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o640


async def test_a_replaced_file_keeps_its_mode(tmp_path):
    (tmp_path / "f").write_text("old and longer")
    (tmp_path / "f").chmod(0o751)
    await write(tmp_path / "f", "new")
    assert (tmp_path / "f").read_text() == "new"
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o751


async def test_a_link_stays_a_link_and_what_it_points_to_is_written(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder/target")
    for text in ("one", "two"):
        await write(tmp_path / "link", text)
        assert (tmp_path / "folder/target").read_text() == text
    assert (tmp_path / "link").is_symlink()


async def test_a_reader_sees_the_old_content_or_the_new_and_nothing_between(tmp_path):
    (tmp_path / "f").write_text("old")
    with (tmp_path / "f").open() as reader:
        await write(tmp_path / "f", "new")
        assert reader.read() == "old"
    assert (tmp_path / "f").read_text() == "new"


async def test_bytes_rename_and_folder_are_synced_in_this_order(tmp_path, monkeypatch):
    done = []
    sync, replace = os.fsync, os.replace

    def fsync(descriptor):
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", lambda *args: done.append("rename") or replace(*args))
    await write(tmp_path / "f", "x")
    assert done == ["file", "rename", "folder"]


@pytest.mark.parametrize("broken", ["fsync", "replace", "fchmod"])
async def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, broken):
    (tmp_path / "f").write_text("old")

    def fail(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, broken, fail)
    error = await failure(write(tmp_path / "f", "new"))
    assert (error.code, error.info.retryable) == (Code.FILE_FAILED, True)
    assert error.info.details == {"path": str(tmp_path / "f"), "errno": "ENOSPC"}
    assert list(tmp_path.iterdir()) == [tmp_path / "f"]
    assert (tmp_path / "f").read_text() == "old"


async def test_a_folder_that_cannot_be_synced_is_an_error_unless_it_never_can(tmp_path, monkeypatch):
    sync, number = os.fsync, errno.EINVAL

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    await write(tmp_path / "f", "x")
    number = errno.EIO
    assert (await failure(write(tmp_path / "f", "x"))).code == Code.FILE_FAILED


async def test_a_file_made_read_only_is_not_replaced(tmp_path, monkeypatch):
    (tmp_path / "f").write_text("kept")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert (await failure(write(tmp_path / "f", "x"))).code == Code.FILE_DENIED
    assert (tmp_path / "f").read_text() == "kept"


async def test_what_is_not_a_regular_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path, tmp_path / "fifo", tmp_path / "loop", "/dev/null"):
        before = os.lstat(path)
        assert (await failure(write(path, "x"))).code == Code.FILE_FAILED
        assert os.lstat(path) == before


async def test_a_folder_that_is_not_there_is_not_made(tmp_path):
    assert (await failure(write(tmp_path / "missing/f", "x"))).code == Code.FILE_NOT_FOUND
    assert list(tmp_path.iterdir()) == []


async def test_a_cancelled_write_leaves_the_file_old_or_new_and_nothing_else(tmp_path):
    (tmp_path / "f").write_text("old")
    with anyio.CancelScope() as scope:
        scope.cancel()
        await write(tmp_path / "f", "new")
    assert (tmp_path / "f").read_text() == "old"
    assert list(tmp_path.iterdir()) == [tmp_path / "f"]


# ---- the requests


def test_the_same_call_has_the_same_request():
    assert read_request("a") == read_request(Path("a")) == {"path": "a", "max_bytes": 67108864}
    assert write_request("a", "é") == write_request("a", "é".encode()) == {"path": "a", "data": {"text": "é"}}


@pytest.mark.parametrize("path", ["", "a\0b", "caf\udce9", b"a", 1, None])
def test_a_path_that_is_no_text_is_refused(path):
    for build in (read_request, lambda path: write_request(path, "")):
        with pytest.raises(OtherIoError) as caught:
            build(path)
        assert caught.value.code == Code.IO_INVALID_REQUEST


@pytest.mark.parametrize("data", [None, 1, {"a": 1}, "\ud800", bytearray(b"a")])
def test_data_that_is_neither_text_nor_bytes_is_refused(data):
    with pytest.raises(OtherIoError) as caught:
        write_request("a", data)
    assert caught.value.code == Code.IO_INVALID_REQUEST


@pytest.mark.parametrize("most", [-1, 1.5, True, 2**53])
def test_a_limit_that_is_no_size_is_refused(most):
    with pytest.raises(OtherIoError):
        read_request("a", max_bytes=most)


@pytest.mark.parametrize(
    ("namespace", "request_"),
    [
        ("file.read", {}),
        ("file.read", {"path": "a"}),
        ("file.read", {"path": "a", "max_bytes": "1"}),
        ("file.write", {"path": "a"}),
        ("file.write", {"path": "a", "data": {"text": 1}}),
        ("file.write", {"path": "a", "data": {"base64": "?"}}),
    ],
)
async def test_a_foreign_request_is_refused_when_performed(namespace, request_):
    assert (await failure(FileTransport().perform(namespace, request_))).code == Code.IO_INVALID_REQUEST


async def test_another_namespace_is_not_served():
    error = await failure(FileTransport().perform("file.chmod", read_request("a")))
    assert error.code == Code.IO_UNKNOWN_NAMESPACE


def test_only_a_write_is_an_effect_and_it_needs_no_key():
    files, request = FileTransport(), write_request("a", "b")
    assert isinstance(files, Transport)
    assert files.is_effect("file.write", request)
    assert not files.is_effect("file.read", read_request("a"))
    assert files.is_certain_effect("file.write", request)
    assert not files.is_certain_effect("file.read", read_request("a"))
    assert files.with_idempotency_key("file.write", request, "key") == request


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to stop being root")
async def test_modes_are_obeyed_for_those_they_bind(tmp_path):
    (tmp_path / "f").write_text("x")
    (tmp_path / "f").chmod(0)
    tmp_path.chmod(0o777)
    os.seteuid(65534)
    try:
        codes = {(await failure(call)).code for call in (read(tmp_path / "f"), write(tmp_path / "f", "y"))}
    finally:
        os.seteuid(0)
    assert codes <= {Code.FILE_DENIED}
