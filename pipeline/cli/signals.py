"""Owns ending a process that C code keeps busy when Ctrl-C or SIGTERM comes. Not the orderly end (options.py)."""

import json
import os
import signal
import socket
import sys
import threading
import time

GRACE_S = 8.0


def exit_when_stuck() -> None:
    """From now on a process that is still there GRACE_S after a signal ends; finished shards are complete, and kept.

    Python's own handlers wait for the main thread to leave C code; a file descriptor is written to at once.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
    threading.Thread(target=_wait, args=(reader, writer), daemon=True).start()


def _wait(reader: socket.socket, writer: socket.socket) -> None:  # `writer` is kept open
    number = 0
    while number not in (signal.SIGINT, signal.SIGTERM):
        number = reader.recv(1)[0]
    time.sleep(GRACE_S)
    code = 128 + number
    message = f"interrupted; still busy after {GRACE_S:g} s, so what was in flight is lost; finished work is kept"
    text = f"Error: {message}\n"
    if "--json" in sys.argv:
        error = {"code": "interrupted", "message": message, "hint": ""}
        text = json.dumps({"schema_version": 1, "command": " ".join(sys.argv[1:2]), "exit_code": code, "error": error})
    where = 1 if "--json" in sys.argv else 2
    printer = threading.Thread(target=os.write, args=(where, text.encode()), daemon=True)  # a full pipe would block
    printer.start()
    printer.join(1)
    os._exit(code)
