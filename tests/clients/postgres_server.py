"""A Postgres server of Debian's package on 127.0.0.1, run as the user `postgres`, for the tests of databases."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import attrs

BIN = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


def missing() -> str | None:
    """Return why no server can be started here, or None."""
    if BIN is None or not (BIN / "initdb").exists():
        return "Postgres is not installed (apt-get install postgresql)"
    if os.geteuid() == 0 and shutil.which("runuser") is None:
        return "Postgres does not run as root, and there is no runuser"
    return None


@attrs.define
class PostgresServer:
    """A server whose data are in `folder`; `start` and `stop` may be called again."""

    folder: Path
    port: int = 0
    running: bool = False

    @property
    def dsn(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def _run(self, program: str, *args: str) -> None:
        command = [str(BIN / program), "-D", str(self.folder / "data"), *args]
        if os.geteuid() == 0:
            command = ["runuser", "-u", "postgres", "--", *command]
        with (self.folder / "said").open("wb") as said:  # no pipe: the server would hold it open
            done = subprocess.run(command, stdout=said, stderr=said, cwd=self.folder, timeout=60, check=False)
        assert done.returncode == 0, (self.folder / "said").read_text()

    def create(self) -> None:
        self.folder.chmod(0o755)
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres")
        self._run("initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "-N")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def start(self) -> None:
        if not self.running:
            options = f"-c listen_addresses=127.0.0.1 -c port={self.port} -c fsync=off "
            options += f"-c unix_socket_directories={self.folder}"
            self._run("pg_ctl", "-w", "-o", options, "-l", str(self.folder / "log"), "start")
            self.running = True

    def stop(self) -> None:
        if self.running:
            self._run("pg_ctl", "-w", "-m", "immediate", "stop")
            self.running = False
