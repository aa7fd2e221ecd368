"""The watcher of a driver: a separate process that ends the driver's programs when the driver has died.

However the driver dies, the kernel closes the pipe that the watcher reads. The watcher is started with the first
program, has a session of its own, so that a signal to the driver's group spares it, and ends with the driver.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from machine.io.orphaned_programs import end_all, left_by


def main() -> None:
    """Wait for the end of the driver that the arguments name, and end the programs it has left."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(
            ignored, signal.SIG_IGN
        )  # for as long as the driver lives, which may take its time to end
    folder, driver, start = sys.argv[-3:]
    while os.read(0, 1):
        pass
    end_all(left_by(Path(folder), int(driver), start), at_once=True)
