"""`s3mount serve`: the configuration file and options into settings, then the server.

Owns: the options, which of file and option goes first, the configuration file that --init writes, the line that says where it listens.
Must not know: what the server does.

An option goes before the file, the file before the default. Standard output gets one line, once requests are answered; the log goes to
standard error or into a file.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import click

from s3mount.cli.open_store import data_folder, open_engine
from s3mount.cli.report import only_cause, os_reason, sentence
from s3mount.cli.store_options import data_option
from s3mount.errors import AccessDenied, AlreadyExists, UsageError
from s3mount.fuse.notify import notify
from s3mount.server.access import KeyPair
from s3mount.server.logs import log_to
from s3mount.server.settings import SECRET_CHARACTERS, Address, Settings, parse, parse_address, render, require_sane
from s3mount.server.workers import serve as serve_until_told

CONFIG = Path("config.yaml")


def _address(text: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as error:
        raise UsageError(f"'{text}' {error}.") from None


@click.command()
@click.option("--listen", metavar="HOST:PORT", help="Where to listen; port 0 lets the system choose. Default: 127.0.0.1:9000.")
@click.option("--workers", type=click.IntRange(1, 64), metavar="N", help="How many processes serve. Default: 1.")
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Read settings from this file (YAML).")
@click.option("--init", is_flag=True, help="Write a configuration file with every setting and its default (--config, else config.yaml).")
@click.option("--auth", is_flag=True, help="Require signatures. Keys: from the file, else AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.")
@click.option("--insecure", is_flag=True, help="Serve an address that others can reach without requiring signatures.")
@click.option(
    "--tls-cert", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Serve HTTPS with this certificate (PEM)."
)
@click.option("--tls-key", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="The certificate's private key (PEM).")
@click.option("--public-hostname", multiple=True, metavar="NAME", help="A name that clients sign, as behind a proxy. May be repeated.")
@click.option("--log-file", type=click.Path(path_type=Path), metavar="FILE", help="Log into this file. Default: standard error.")
@data_option
def serve(
    *,
    listen: str | None,
    workers: int | None,
    config: Path | None,
    init: bool,
    auth: bool,
    insecure: bool,
    tls_cert: Path | None,
    tls_key: Path | None,
    public_hostname: tuple[str, ...],
    log_file: Path | None,
    data: Path | None,
) -> None:
    """Serve the embedded store as an S3 endpoint.

    Without --auth whoever reaches the address may do everything, so only this machine can, unless --insecure is given.
    """
    if init:
        _write_config(config or CONFIG, data)
        return
    given = {
        "listen": _address(listen) if listen is not None else None,
        "workers": workers,
        "auth": True if auth else None,
        "insecure": True if insecure else None,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "public_hostnames": tuple(name.lower() for name in public_hostname) or None,
        "log_file": log_file,
        "data": data,
    }
    _serve(_with_keys(_merged(read_settings(config), given)))


def _serve(settings: Settings) -> None:
    require_sane(settings)
    folder = data_folder(settings.data)
    log_to(
        settings.log_file and settings.log_file.absolute(),
        level=settings.log_level,
        size=settings.log_size,
        count=settings.log_count,
        compress=settings.log_gzip,
    )

    def ready(address: Address) -> None:
        click.echo(f"s3mount: serving {folder} on {'https' if settings.tls_cert else 'http'}://{address}")
        notify(READY="1", STATUS=f"serving on {address}")

    serve_until_told(settings, lambda: open_engine(folder, create=True), ready=ready, explain=lambda error: sentence(only_cause(error)))


# -- settings --------------------------------------------------------------------------------


def read_settings(config: Path | None) -> Settings:
    """What *config* says; the defaults without one. Raises UsageError."""
    if config is None:
        return Settings()
    try:
        text = config.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{config} is no text in UTF-8.") from None
    except OSError as error:
        raise UsageError(f"{config} cannot be read: {os_reason(error)}.") from None
    return parse(text, name=str(config))


def _merged(settings: Settings, given: dict[str, Any]) -> Settings:
    return dataclasses.replace(settings, **{name: value for name, value in given.items() if value is not None})


def _with_keys(settings: Settings) -> Settings:
    """With --auth and no keys in the file, the pair that AWS's tools would use."""
    access_key, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    if not settings.auth or settings.keys or not access_key or not secret:
        return settings
    if len(secret) < SECRET_CHARACTERS:
        raise UsageError(f"AWS_SECRET_ACCESS_KEY needs at least {SECRET_CHARACTERS} characters.")
    return dataclasses.replace(settings, keys=(KeyPair(access_key, secret),))


def _write_config(path: Path, data: Path | None) -> None:
    """A new file that only its owner may read: it is going to hold secrets."""
    said = "null" if data is None else "'" + str(data.absolute()).replace("'", "''") + "'"
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w", encoding="utf-8") as file:
            file.write(render(said))
    except FileExistsError:
        raise AlreadyExists(f"{path} is there already: remove it, or choose another with --config.") from None
    except OSError as error:
        raise AccessDenied(f"{path} cannot be written: {os_reason(error)}.") from None
    click.echo(f"s3mount: wrote {path}; serve with: s3mount serve --config {path}")
