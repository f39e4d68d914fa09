"""Every setting is written, read, and refused by name and line."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from s3mount.errors import UsageError
from s3mount.server.access import KeyPair, Rights
from s3mount.server.settings import SETTINGS, Address, Settings, parse, parse_address, render, require_sane


def test_the_written_file_says_the_defaults() -> None:
    assert parse(render(), name="config.yaml") == Settings()


def test_an_empty_file_says_the_defaults() -> None:
    assert parse("", name="config.yaml") == Settings()
    assert parse("# nothing\n", name="config.yaml") == Settings()
    assert parse("log:\n", name="config.yaml") == Settings()


def test_the_table_names_every_field() -> None:
    assert {setting.field for setting in SETTINGS} == {field.name for field in fields(Settings)}


def test_the_written_file_takes_a_data_folder() -> None:
    assert parse(render("'/srv/it''s'"), name="config.yaml").data == Path("/srv/it's")


def test_what_is_set_is_taken() -> None:
    text = """
listen: '[::1]:0'
workers: 3
auth: true
public_hostnames: [S3.example.org, s3.example.org:8443]
tls: {cert: /a.pem, key: /b.pem}
keys:
  - {access_key: all, secret_key: 0123456789}
  - access_key: some
    secret_key: abcdefghij
    rights: read-only
    bucket: photos
log: {level: debug, file: /var/log/x, size: 1M, count: 0, gzip: false, requests: off}
maintenance: {sweep: 0, uploads: 1d, scrub_rate: 1M}
limits: {silence: 5s, drain: 1m, connections: 10}
"""
    settings = parse(text, name="config.yaml")
    assert settings.listen == Address("::1", 0)
    assert settings.keys == (
        KeyPair("all", "0123456789"),
        KeyPair("some", "abcdefghij", Rights(write=False, bucket="photos")),
    )
    assert settings.bases == ("localhost", "s3.example.org")
    assert (settings.log_size, settings.log_gzip, settings.log_requests) == (1 << 20, False, False)
    assert (settings.maintenance_sweep, settings.maintenance_uploads, settings.limits_drain) == (0, 86400, 60)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("\nlissten: x", "line 2: unknown setting 'lissten'"),
        ("log:\n  level: info\n  levle: debug", "line 3: unknown setting 'log.levle'"),
        ("log:\n  level: loud", "line 2: 'log.level' must be one of debug, info, warning, error"),
        ("listen: 9000", "line 1: 'listen' must be HOST:PORT"),
        ("listen: localhost:70000", "line 1: 'listen' must be HOST:PORT"),
        ("workers: 0", "line 1: 'workers' must be a whole number from 1 to 64"),
        ("workers: many", "line 1: 'workers' must be a whole number"),
        ("workers: [1]", "line 1: 'workers' must be one value"),
        ("auth: perhaps", "line 1: 'auth' must be true or false"),
        ("log: 3", "line 1: 'log' must hold settings"),
        ("- 1", "line 1: the file must hold settings"),
        ("log:\n  size: big", "line 2: 'log.size' is wrong: 'big' is no size"),
        ("log:\n  size: 1", "line 2: 'log.size' must be at least 4096 bytes"),
        ("limits:\n  drain: soon", "line 2: 'limits.drain' is wrong: 'soon' is no duration"),
        ("limits:\n  silence: 0", "line 2: 'limits.silence' must be at least 1s"),
        ("workers: 1\nworkers: 2", "line 2: 'workers' is set twice"),
        ("keys:\n  - access_key: a", "line 2: a key pair needs access_key, and a secret_key"),
        ("keys:\n  - access_key: a\n    secret_key: short", "line 2: a key pair needs"),
        ("keys:\n  - access_key: a\n    secret_key: 0123456789\n    rigths: all", "line 4: unknown setting 'keys.rigths'"),
        ("keys:\n  - access_key: a\n    secret_key: 0123456789\n    rights: none", "line 4: 'keys.rights' must be one of"),
        ("keys: [a]", "line 1: a key pair must have"),
        ("keys: 3", "line 1: 'keys' must be a list"),
        ("keys: [{access_key: a, secret_key: 0123456789}, {access_key: a, secret_key: 9876543210}]", "names an access_key twice"),
        ("public_hostnames: s3.example.org", "line 1: 'public_hostnames' must be a list"),
        ("listen: [", "line 1: this is no YAML"),
        ("a: !!python/object/apply:os.system [ls]", "line 1: unknown setting 'a'"),
        ("x: *y", "line 1: this is no YAML"),
    ],
)
def test_a_mistake_is_named_with_its_line(text: str, complaint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text, name="config.yaml")
    assert str(caught.value).startswith("config.yaml, line ")
    assert complaint in str(caught.value)


def test_a_secret_is_in_no_complaint_and_no_repr() -> None:
    with pytest.raises(UsageError) as caught:
        parse("keys:\n  - access_key: a\n    secret_key: hush hush hush", name="config.yaml")
    assert "hush" not in str(caught.value)
    assert "0123456789" not in repr(parse("keys: [{access_key: a, secret_key: 0123456789}]", name="config.yaml"))


@pytest.mark.parametrize("text", ["127.0.0.1:9000", "127.8.9.1:0", "localhost:80", "[::1]:9000"])
def test_loopback_needs_nothing(text: str) -> None:
    require_sane(Settings(listen=parse_address(text)))


@pytest.mark.parametrize("text", ["0.0.0.0:9000", ":9000", "[::]:9000", "192.168.1.1:9000", "example.org:80", "localhost.example.org:80"])
def test_any_other_address_needs_keys_or_insecure(text: str) -> None:
    settings = Settings(listen=parse_address(text))
    with pytest.raises(UsageError, match="--auth"):
        require_sane(settings)
    with pytest.raises(UsageError, match="no key pair"):
        require_sane(replace(settings, auth=True))
    require_sane(replace(settings, insecure=True))
    require_sane(replace(settings, keys=(KeyPair("a", "0123456789"),)))


def test_keys_switch_authentication_on_unless_it_is_off() -> None:
    pair = KeyPair("a", "0123456789")
    assert Settings().keyring is None
    assert Settings(keys=(pair,)).keyring is not None
    assert Settings(keys=(pair,), auth=False).keyring is None


def test_a_certificate_needs_its_key() -> None:
    with pytest.raises(UsageError, match="both a certificate and its key"):
        require_sane(Settings(tls_cert=Path("a.pem")))
