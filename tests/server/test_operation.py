"""The server as a service: what it refuses to start with, its lines, its pages, how it ends."""

from __future__ import annotations

import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest

from s3mount.cli.main import main
from s3mount.engine.lock import turn
from tests.server.serving import ACCESS_KEY, PATIENCE_S, SECRET_KEY, Server, environment, exchange, s3mount, served

pytestmark = pytest.mark.slow  # nearly each starts a server of its own

MiB = 1024 * 1024


def wait_until(condition: object, what: str) -> None:
    """Until *condition* holds: something that another process does soon."""
    deadline = time.monotonic() + PATIENCE_S
    assert callable(condition)
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


Program = Callable[..., tuple[int, str]]


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Program:
    """A run of the program in this process, for what ends before it serves: its status, and what it complained of."""

    def run(*arguments: str | Path) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["s3mount", *map(str, arguments)])
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "")
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().err

    return run


# -- starting --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--listen", "0.0.0.0:0"], "0.0.0.0:0 can be reached from elsewhere"),
        (["--listen", "nonsense"], "'nonsense' must be HOST:PORT"),
        (["--auth"], "there is no key pair"),
        (["--tls-cert", "cert.pem"], "both a certificate and its key"),
        (["--tls-cert", "missing.pem", "--tls-key", "missing.pem"], "no certificate and key"),
        (["--config", "missing.yaml"], "missing.yaml cannot be read"),
        (["--workers", "0"], "0 is not in the range"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_sentence(tmp_path: Path, program: Program, arguments: list[str], complaint: str) -> None:
    status, said = program("serve", "--data", tmp_path / "data", *arguments)
    assert status == 2
    assert complaint in said
    assert said.startswith("s3mount: ")
    assert said.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = s3mount("serve", "--data", tmp_path / "data", "--listen", f"127.0.0.1:{port}")
    assert ended.returncode == 1
    assert f"Cannot listen on 127.0.0.1:{port}: Address already in use." in ended.stderr


def test_a_mistake_in_the_file_is_named_by_line(tmp_path: Path, program: Program) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("listen: 127.0.0.1:0\nworker: 2\n")
    assert program("serve", "--config", config) == (2, f"s3mount: {config}, line 2: unknown setting 'worker'.\n")


def test_init_writes_a_file_that_serves(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    written = s3mount("serve", "--init", "--config", config, "--data", tmp_path / "data")
    assert written.returncode == 0, written.stderr
    assert config.stat().st_mode & 0o777 == 0o600
    with served(tmp_path, "--config", config) as server:
        assert server.request("GET", "/-/health").status == 200
    again = s3mount("serve", "--init", "--config", config)
    assert again.returncode == 1
    assert "is there already" in again.stderr


# -- what it says of itself ------------------------------------------------------------------


def test_each_request_gets_a_line(server: Server, bucket: str) -> None:
    answer = server.request("PUT", f"/{bucket}/a%20b?X-Amz-Signature=secret&x-id=PutObject", b"12345")
    request_id = answer.headers["x-amz-request-id"]
    wait_until(lambda: any(line.get("request_id") == request_id for line in server.lines()), "its line")
    (line,) = [line for line in server.lines() if line.get("request_id") == request_id]
    assert (line["event"], line["method"], line["status"], line["bytes_in"]) == ("request", "PUT", answer.status, 5)
    assert line["path"] == f"/{bucket}/a%20b?X-Amz-Signature=-&x-id=PutObject"
    assert line["ms"] > 0


def test_health_and_metrics_answer(server: Server, bucket: str) -> None:
    server.request("PUT", f"/{bucket}/a", b"x")
    assert json.loads(server.request("GET", "/-/health").body) == {"status": "ok"}
    metrics = server.request("GET", "/-/metrics")
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert b's3mount_requests_total{method="PUT",status="2xx"}' in metrics.body
    assert b"s3mount_space_bytes" in metrics.body
    assert server.request("GET", "/-/nothing").status == 404


def test_the_server_pages_do_not_hide_keys_of_a_bucket_that_the_host_names(server: Server, bucket: str) -> None:
    host = {"Host": f"{bucket}.localhost:{server.port}"}
    assert server.request("PUT", "/-/health", b"mine", host).status == 200
    assert server.request("GET", "/-/health", headers=host).body == b"mine"


def test_the_index_is_made_anew_on_request(server: Server, bucket: str) -> None:
    server.request("PUT", f"/{bucket}/a", b"x")
    assert server.request("POST", f"/{bucket}?rebuildIndex").status == 202
    wait_until(lambda: any("made anew" in line["event"] for line in server.lines()), "a new index")
    assert server.request("GET", f"/{bucket}/a").body == b"x"


def test_only_one_index_is_made_at_a_time_on_a_folder(server: Server, bucket: str) -> None:
    with turn(server.data / "rebuilding", wait=True):
        answer = server.request("POST", f"/{bucket}?rebuildIndex")
        assert (answer.status, answer.code) == (409, "OperationAborted")
    wait_until(lambda: server.request("POST", f"/{bucket}?rebuildIndex").status == 202, "its turn")


# -- authentication --------------------------------------------------------------------------


def test_presigned_urls_hold_where_signatures_are_required(tmp_path: Path) -> None:
    with served(tmp_path, "--auth") as server:
        assert server.request("GET", "/").code == "AccessDenied"
        for method, url in (("PUT", f"{server.url}/box"), ("PUT", f"{server.url}/box/a b"), ("GET", "local://box/a b")):
            signed = s3mount("presign", url, "--method", method, "--expires", "5m", "--endpoint", server.url)
            assert signed.returncode == 0, signed.stderr
            target = signed.stdout.strip().removeprefix(server.url)
            answer = server.request(method, target, b"body" if target.startswith("/box/") and method == "PUT" else b"")
            assert answer.status == 200, answer.body
        assert answer.body == b"body"
        assert server.request("GET", target[:-1] + ("0" if target[-1] != "0" else "1")).code == "SignatureDoesNotMatch"
        assert SECRET_KEY not in (tmp_path / "serve.log").read_text()
        wait_until(lambda: any(line.get("key_id") == ACCESS_KEY for line in server.lines()), "the key's id in a line")


@pytest.mark.parametrize(("url", "expires"), [("ftp://x/y", "1h"), ("local://box", "1h"), ("http://h/b/k", "8d"), ("http://h/b/k", "0")])
def test_what_cannot_be_presigned_is_refused(program: Program, url: str, expires: str) -> None:
    status, said = program("presign", url, "--expires", expires)
    assert status == 2
    assert said.count("\n") == 1


def test_tls_is_served(tmp_path: Path) -> None:
    """boto3 sends bodies in unsigned chunks with a trailing checksum over TLS, and only there."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *subject], check=True, capture_output=True)
    body = os.urandom(11 * MiB)
    with served(tmp_path, "--auth", "--tls-cert", certificate, "--tls-key", key) as server:
        assert server.url.startswith("https://")
        s3 = boto3.client(
            "s3",
            endpoint_url=server.url,
            verify=str(certificate),
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )
        s3.create_bucket(Bucket="box")
        for size in (0, 1000, 3 * MiB, len(body)):
            s3.put_object(Bucket="box", Key="a", Body=io.BytesIO(body[:size]))
            assert s3.get_object(Bucket="box", Key="a", ChecksumMode="ENABLED")["Body"].read() == body[:size]
        s3.upload_fileobj(io.BytesIO(body), "box", "parts")
        received = io.BytesIO()
        s3.download_fileobj("box", "parts", received)
        assert received.getvalue() == body
        s3.close()


# -- several processes -----------------------------------------------------------------------


def test_workers_share_address_folder_and_figures(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "2") as server:
        assert server.request("PUT", "/box").status == 200
        for number in range(20):
            assert server.request("PUT", f"/box/{number}", b"x").status == 200
            assert server.request("GET", f"/box/{number}").body == b"x"
        told = b's3mount_requests_total{method="PUT",status="2xx"} 21\n'
        wait_until(lambda: told in server.request("GET", "/-/metrics").body, "the last one to be counted")
        assert len({line["pid"] for line in server.lines() if line["event"] == "request"}) == 2


def test_workers_agree_on_who_wrote_first(tmp_path: Path) -> None:
    winners: list[tuple[int, int]] = []

    def client(number: int) -> None:
        connection = http.client.HTTPConnection(server.host, server.port, timeout=PATIENCE_S)
        for count in range(30):
            connection.request("PUT", f"/box/{count}", f"{number}".encode(), {"If-None-Match": "*"})
            answer = connection.getresponse()
            answer.read()
            assert answer.status in (200, 412)
            if answer.status == 200:
                winners.append((count, number))
        connection.close()

    with served(tmp_path, "--workers", "2") as server:
        server.request("PUT", "/box")
        with ThreadPoolExecutor(8) as clients:
            list(clients.map(client, range(8)))
        assert sorted(count for count, _ in winners) == list(range(30))
        assert all(server.request("GET", f"/box/{count}").body == f"{number}".encode() for count, number in winners)


def test_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "2") as server:
        pid = server.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
        wait_until(lambda: any("another is started" in line["event"] for line in server.lines()), "a new worker")
        assert server.request("GET", "/-/health").status == 200
        assert server.stop() == 0


# -- ending ----------------------------------------------------------------------------------


def test_what_is_under_way_is_finished_after_sigterm(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        server.request("PUT", "/box")
        with server.connect() as idle, server.connect() as channel:
            channel.sendall(b"PUT /box/slow HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345")
            wait_until(lambda: b"in_flight 2" in server.request("GET", "/-/metrics").body, "the upload to be under way")
            server.process.send_signal(signal.SIGTERM)
            assert idle.recv(1) == b""
            with pytest.raises(ConnectionRefusedError):
                server.connect()
            assert exchange(channel, b"67890").startswith(b"HTTP/1.1 200")
        assert server.process.wait(PATIENCE_S) == 0
        again = Server(server.data, log=tmp_path / "again.log")
        assert again.request("GET", "/box/slow").body == b"1234567890"
        assert again.stop() == 0


def test_what_does_not_end_is_cut_off_in_time(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("limits:\n  drain: 500ms\n")
    with served(tmp_path, "--config", config) as server:
        server.request("PUT", "/box")
        with server.connect() as channel:
            channel.sendall(b"PUT /box/never HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345")
            wait_until(lambda: b"in_flight 2" in server.request("GET", "/-/metrics").body, "the upload to be under way")
            begun = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - begun < 20  # of the 30 s that they would have by default


# -- crashes ---------------------------------------------------------------------------------


def test_acknowledged_puts_survive_being_killed_under_load(tmp_path: Path) -> None:
    """Every PUT that was answered 200 is there with its bytes; what was not is there whole or not at all."""
    acknowledged: dict[str, bytes] = {}
    sent: dict[str, bytes] = {}
    for round_ in range(4):
        server = Server(tmp_path / "data", log=tmp_path / "serve.log")
        try:
            server.request("PUT", "/box")
            for key, body in acknowledged.items():
                assert server.request("GET", f"/box/{key}").body == body
            for key in sent.keys() - acknowledged.keys():
                found = server.request("GET", f"/box/{key}")
                assert found.status == 404 or found.body == sent[key]
            _load(server, f"{round_}", acknowledged, sent)
        finally:
            server.kill()
    checked = s3mount("store", "check", "--data", tmp_path / "data")
    assert checked.returncode == 0, checked.stdout
    assert s3mount("store", "scrub", "--data", tmp_path / "data").returncode == 0


def _load(server: Server, name: str, acknowledged: dict[str, bytes], sent: dict[str, bytes]) -> None:
    """Several clients put objects of all sizes until the server is killed in the midst of it."""
    enough = len(acknowledged) + 20

    def client(number: int) -> None:
        connection = http.client.HTTPConnection(server.host, server.port, timeout=PATIENCE_S)
        for count in range(10_000):
            key, body = f"{name}-{number}-{count}", os.urandom((100, 20_000, 700_000)[count % 3])
            sent[key] = body
            try:
                connection.request("PUT", f"/box/{key}", body)
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException):
                connection.close()
                return
            assert answer.status == 200
            acknowledged[key] = body

    threads = [threading.Thread(target=client, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(acknowledged) >= enough, "objects to be acknowledged")
    server.kill()
    for thread in threads:
        thread.join()


def test_the_service_manager_hears_that_it_is_ready(tmp_path: Path) -> None:
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(name)
        channel.settimeout(PATIENCE_S)
        command = ["serve", "--data", str(tmp_path / "data"), "--listen", "127.0.0.1:0"]
        process = subprocess.Popen(
            [sys.executable, "-m", "s3mount", *command], env=environment(NOTIFY_SOCKET=name), stdout=subprocess.DEVNULL
        )
        assert b"READY=1" in channel.recv(4096)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
