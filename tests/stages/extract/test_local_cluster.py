"""local_cluster.py: nobody else on this machine can use the processes of a run."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import distributed
import psutil
import pytest

from stages.extract import local_cluster

ATTACK = """
import asyncio, os, sys
import distributed
from distributed.security import Security

others = Security.temporary()
if os.geteuid() == 0:  # after the imports, since our interpreter may lie where others may not look
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)

async def attack(address, security):
    async with distributed.Client(address, security=security, timeout=3, asynchronous=True) as client:
        print("code ran as user", await client.run_on_scheduler(os.getuid), flush=True)

for port in sys.argv[1:]:
    for protocol, security in (("tcp", None), ("tls", others)):
        try:
            asyncio.run(attack(f"{protocol}://127.0.0.1:{port}", security))
        except Exception as error:
            print(port, protocol, type(error).__name__, flush=True)
print("as user", os.getuid())
"""
"""As another user, if that is possible: to every port, without credentials, and with those of another cluster."""


def attack(ports: list[int]) -> str:
    """What the attack prints."""
    words = [sys.executable, "-c", ATTACK, *map(str, ports)]
    out = subprocess.check_output(words, text=True, timeout=120)
    assert out.endswith(f"as user {os.geteuid() or 65534}\n")
    return out


def listening_ports() -> list[int]:
    """Of this process and all its children; all of them are on 127.0.0.1."""
    me = psutil.Process()
    listening = [
        connection.laddr
        for process in (me, *me.children(recursive=True))
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert {address.ip for address in listening} <= {"127.0.0.1"}
    return [address.port for address in listening]


@pytest.fixture(scope="module")
def ports() -> Iterator[list[int]]:
    before = set(listening_ports())  # of tests before: a client may keep its connection
    with local_cluster.start_processes(2):
        yield sorted(set(listening_ports()) - before)


def answer(port: int, request: bytes, context: ssl.SSLContext | None = None) -> bytes:
    """What a port says to a request, if anything."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
        try:
            with context.wrap_socket(plain) if context else plain as connection:
                connection.sendall(request)
                return connection.recv(1000)
        except (ConnectionError, ssl.SSLError, TimeoutError):
            return b""


def test_scheduler_nannies_and_workers_listen_and_nothing_else(ports: list[int]) -> None:
    assert len(ports) == 1 + 2 + 2


def test_no_port_speaks_http_or_dask_without_the_credentials(ports: list[int]) -> None:
    without_certificate = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    without_certificate.check_hostname, without_certificate.verify_mode = False, ssl.CERT_NONE
    for port in ports:
        assert b"HTTP" not in answer(port, b"GET /health HTTP/1.0\r\n\r\n")
        assert answer(port, b"GET /health HTTP/1.0\r\n\r\n", without_certificate) == b""


def test_no_other_user_can_run_code(ports: list[int]) -> None:
    assert "code ran" not in attack(ports)


def test_the_same_attack_succeeds_on_a_cluster_without_credentials() -> None:
    """So that the test above can fail."""
    with distributed.LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0") as open_to_all:
        port = int(open_to_all.scheduler_address.rpartition(":")[2])
        assert f"code ran as user {os.geteuid()}\n" in attack([port])
        http = int(open_to_all.dashboard_link.split(":")[2].split("/")[0])
        assert b"HTTP" in answer(http, b"GET /health HTTP/1.0\r\n\r\n")


def test_the_credentials_are_on_no_command_line(ports: list[int]) -> None:
    for process in psutil.Process().children(recursive=True):
        assert "BEGIN" not in " ".join(process.cmdline())
        assert Path(f"/proc/{process.pid}/environ").stat().st_mode & 0o077 == 0
