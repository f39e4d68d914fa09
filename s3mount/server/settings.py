"""What `s3mount serve` can be told: one table of settings, read from YAML, written as a commented file.

Owns: names, defaults, meanings of all settings; the sentence for each mistake, with file and line; the loopback rule.
Must not know: the command line, sockets, files other than by name. Pure.

One table (`SETTINGS`) says everything once: `render` writes it as config.yaml, `parse` reads by it, and both can name nothing else.
A file is read as YAML nodes, not as values, since nodes know their lines. A setting that is left out has its default.

Invariants
----------
S1  `parse(render())` is `Settings()`.
S2  Each field of `Settings` is one row of the table; `log.level` is the field `log_level`.
S3  Without authentication only a loopback address is served, unless `insecure` says that this is meant.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from s3mount.config import parse_duration, parse_size
from s3mount.errors import UsageError
from s3mount.server.access import KeyPair, Keyring, Rights

LEVELS = ("debug", "info", "warning", "error")

# A secret shorter than this can be guessed from one signature (HMAC keys below 64 bits); AWS's have 40 characters.
SECRET_CHARACTERS = 8


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen; port 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings. Durations are seconds, sizes bytes, None means what the table says of `null`."""

    listen: Address = Address("127.0.0.1", 9000)
    data: Path | None = None
    workers: int = 1
    auth: bool | None = None
    insecure: bool = False
    region: str = "us-east-1"
    public_hostnames: tuple[str, ...] = ()
    domains: tuple[str, ...] = ("localhost",)
    tls_cert: Path | None = None
    tls_key: Path | None = None
    keys: tuple[KeyPair, ...] = ()
    log_level: str = "info"
    log_file: Path | None = None
    log_size: int = 64 * 1024**2
    log_count: int = 5
    log_gzip: bool = True
    log_requests: bool = True
    maintenance_sweep: float = 3600.0
    maintenance_uploads: float = 7 * 86400.0
    maintenance_scrub: float = 30 * 86400.0
    maintenance_scrub_rate: int = 16 * 1024**2
    limits_connections: int = 4096
    limits_silence: float = 60.0
    limits_drain: float = 30.0

    @property
    def verifies(self) -> bool:
        """Whether requests must be signed: `auth`, or by default whether there are keys."""
        return bool(self.keys) if self.auth is None else self.auth

    @property
    def keyring(self) -> Keyring | None:
        """None: whoever reaches the server may do everything."""
        return Keyring(self.keys) if self.verifies else None

    @property
    def bases(self) -> tuple[str, ...]:
        """Host names under which buckets are sub-domains: no port, lower case."""
        return tuple(dict.fromkeys([*self.domains, *(name.partition(":")[0] for name in self.public_hostnames)]))


def require_sane(settings: Settings) -> None:
    """What no single setting shows. Raises UsageError."""
    if settings.verifies and not settings.keys:
        raise UsageError("Authentication is on and there is no key pair: list some under 'keys' in the configuration file.")
    if not settings.verifies and not settings.insecure and not settings.listen.is_loopback:
        raise UsageError(
            f"{settings.listen} can be reached from elsewhere: serve it with --auth and keys, "
            "or with --insecure if everybody may do everything."
        )
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise UsageError("TLS needs both a certificate and its key: tls.cert and tls.key.")


# -- kinds of values: each takes what YAML found, and raises ValueError with half a sentence -----


def _text(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise ValueError("must be one value")
    return str(node.value)


def _flag(node: yaml.Node) -> bool:
    if node.tag != "tag:yaml.org,2002:bool":
        raise ValueError("must be true or false")
    return _text(node).lower() in ("true", "yes", "on")


def _is_null(node: yaml.Node) -> bool:
    return node.tag == "tag:yaml.org,2002:null"


def _optional(kind: Callable[[yaml.Node], Any]) -> Callable[[yaml.Node], Any]:
    return lambda node: None if _is_null(node) else kind(node)


def _whole(least: int, most: int) -> Callable[[yaml.Node], int]:
    def kind(node: yaml.Node) -> int:
        text = _text(node)
        if not re.fullmatch("[0-9]{1,9}", text) or not least <= int(text) <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return int(text)

    return kind


def _size(least: int) -> Callable[[yaml.Node], int]:
    def kind(node: yaml.Node) -> int:
        try:
            size = parse_size(_text(node))
        except UsageError as error:
            raise ValueError(f"is wrong: {_as_clause(error)}") from None
        if size < least:
            raise ValueError(f"must be at least {least} bytes")
        return size

    return kind


def _duration(node: yaml.Node) -> float:
    try:
        return parse_duration(_text(node))
    except UsageError as error:
        raise ValueError(f"is wrong: {_as_clause(error)}") from None


def _patience(node: yaml.Node) -> float:
    if (seconds := _duration(node)) < 1:
        raise ValueError("must be at least 1s")
    return seconds


def _as_clause(error: UsageError) -> str:
    return str(error).rstrip(".")


def _one_of(*choices: str) -> Callable[[yaml.Node], str]:
    def kind(node: yaml.Node) -> str:
        if _text(node) not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return _text(node)

    return kind


def _word(node: yaml.Node) -> str:
    if not re.fullmatch(r"[\x21-\x7e]+", text := _text(node)) or _is_null(node):
        raise ValueError("must be one word")
    return text


def _path(node: yaml.Node) -> Path:
    if not (text := _text(node)) or "\0" in text:
        raise ValueError("must be the name of a file")
    return Path(text).expanduser()


def _words(node: yaml.Node) -> tuple[str, ...]:
    if not isinstance(node, yaml.SequenceNode):
        raise ValueError("must be a list, as in [a.example.org, b.example.org]")
    return tuple(_word(item).lower() for item in node.value)


def _address(node: yaml.Node) -> Address:
    return parse_address(_text(node))


def parse_address(text: str) -> Address:
    """HOST:PORT, or [IPv6]:PORT. Raises ValueError with half a sentence."""
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:.%]+)\]|([^\s\[\]:/]*)):([0-9]{1,5})", text)
    if not found or int(found[3]) > 65535:
        raise ValueError("must be HOST:PORT, as in 127.0.0.1:9000")
    return Address(found[1] or found[2] or "0.0.0.0", int(found[3]))


def _key_pairs(node: yaml.Node) -> tuple[KeyPair, ...]:
    if not isinstance(node, yaml.SequenceNode):
        raise ValueError("must be a list of key pairs")
    pairs = tuple(_key_pair(item) for item in node.value)
    if len({pair.access_key for pair in pairs}) < len(pairs):
        raise ValueError("names an access_key twice")
    return pairs


def _key_pair(node: yaml.Node) -> KeyPair:
    if not isinstance(node, yaml.MappingNode):
        raise Misplaced(node, "a key pair must have access_key and secret_key")
    given = {_text(name): (name, value) for name, value in node.value}
    for name, (at, _) in given.items():
        if name not in ("access_key", "secret_key", "rights", "bucket"):
            raise Misplaced(at, f"unknown setting 'keys.{name}'")
    values = {name: _within(value, name) for name, (_, value) in given.items()}
    if not values.get("access_key") or len(values.get("secret_key", "")) < SECRET_CHARACTERS:
        raise Misplaced(node, f"a key pair needs access_key, and a secret_key of at least {SECRET_CHARACTERS} characters")
    if values.get("rights", "all") not in ("all", "read-only"):
        raise Misplaced(given["rights"][1], "'keys.rights' must be one of all, read-only")
    rights = Rights(write=values.get("rights", "all") == "all", bucket=values.get("bucket", ""))
    return KeyPair(values["access_key"], values["secret_key"], rights)


def _within(node: yaml.Node, name: str) -> str:
    try:
        return _word(node)
    except ValueError as error:
        raise Misplaced(node, f"'keys.{name}' {error}") from None


class Misplaced(ValueError):
    """A mistake at a node deeper than the setting itself; its text is the whole complaint."""

    def __init__(self, node: yaml.Node, complaint: str) -> None:
        super().__init__(complaint)
        self.line = node.start_mark.line + 1


# -- the table ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Setting:
    """One row: its name in the file, its default as the file says it, how it is read, what it means."""

    name: str
    default: str
    kind: Callable[[yaml.Node], Any]
    meaning: str

    @property
    def field(self) -> str:
        return self.name.replace(".", "_")


KEYS_EXAMPLE = """\
Who may do what, once authentication is on. For example:
  keys:
    - access_key: backup
      secret_key: at-least-8-characters
    - access_key: reader
      secret_key: another-long-secret
      rights: read-only      # all or read-only
      bucket: photos         # only this bucket; without it, every one"""

SETTINGS = (
    Setting("listen", "127.0.0.1:9000", _address, "Where to listen: HOST:PORT. Port 0 lets the system choose."),
    Setting("data", "null", _optional(_path), "The data folder. null: $S3MOUNT_DATA, else s3mount in the user's data directory (XDG)."),
    Setting("workers", "1", _whole(1, 64), "How many processes serve; they share the address and the folder."),
    Setting("auth", "null", _optional(_flag), "Whether requests must be signed. null: if there are keys."),
    Setting("insecure", "false", _flag, "Serve an address that others can reach even without authentication."),
    Setting(
        "region", "us-east-1", _word, "The region that GetBucketLocation and presigned URLs name. Any region is accepted in a signature."
    ),
    Setting("public_hostnames", "[]", _words, "Further names of this server that clients sign, as behind a proxy: HOST or HOST:PORT."),
    Setting("domains", "[localhost]", _words, "Host names under which buckets are sub-domains: BUCKET.localhost. Public names count too."),
    Setting("tls.cert", "null", _optional(_path), "The certificate (PEM, with its chain). null: no TLS."),
    Setting("tls.key", "null", _optional(_path), "The certificate's private key (PEM)."),
    Setting("keys", "[]", _key_pairs, KEYS_EXAMPLE),
    Setting("log.level", "info", _one_of(*LEVELS), f"How much to log: {', '.join(LEVELS)}. Requests are info."),
    Setting("log.file", "null", _optional(_path), "Where the log goes, one JSON object per line. null: standard error."),
    Setting("log.size", "64M", _size(4096), "A log file that has grown to this is put aside (.1, .2.gz, ...)."),
    Setting("log.count", "5", _whole(0, 1000), "How many of those are kept."),
    Setting("log.gzip", "true", _flag, "Whether they are compressed; the newest of them never is."),
    Setting("log.requests", "true", _flag, "Whether each request gets a line."),
    Setting("maintenance.sweep", "1h", _duration, "How often what crashed processes left behind is removed. 0: never."),
    Setting("maintenance.uploads", "7d", _duration, "Multipart uploads without a new part for so long are aborted. 0: never."),
    Setting("maintenance.scrub", "30d", _duration, "How often every stored byte is read and its hash verified. 0: never."),
    Setting("maintenance.scrub_rate", "16M", _size(4096), "Bytes per second that a scrub reads at most."),
    Setting(
        "limits.connections", "4096", _whole(1, 1_000_000), "Connections per worker. Beyond, the one that has been idle longest is closed."
    ),
    Setting("limits.silence", "60s", _patience, "A client that owes us bytes, or takes none of ours, for so long is disconnected."),
    Setting("limits.drain", "30s", _duration, "How long requests under way may take to finish after SIGTERM."),
)
_BY_NAME = {setting.name: setting for setting in SETTINGS}
_SECTIONS = tuple(dict.fromkeys(setting.name.partition(".")[0] for setting in SETTINGS if "." in setting.name))


# -- writing -----------------------------------------------------------------------------------


def render(data: str = "null") -> str:
    """config.yaml with every setting, its meaning and its default (but for *data*, as YAML)."""
    lines = ["# s3mount serve: every setting and its default. Durations: 500ms, 30s, 5m, 1h, 7d. Sizes: 64K, 16M, 1G."]
    section = ""
    for setting in SETTINGS:
        head, _, tail = setting.name.rpartition(".")
        if head != section and head:
            lines += ["", f"{head}:"]
        section = head
        indent = "  " if head else ""
        if not head:
            lines.append("")
        lines += [f"{indent}# {line}" for line in setting.meaning.splitlines()]
        lines.append(f"{indent}{tail}: {data if setting.name == 'data' else setting.default}")
    return "\n".join(lines) + "\n"


# -- reading -----------------------------------------------------------------------------------


def parse(text: str, *, name: str) -> Settings:
    """The settings in *text*; *name* is the file's, for the sentences. Raises UsageError."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise UsageError(_not_yaml(error, name)) from None
    if root is None or _is_null(root):
        return Settings()
    return Settings(**_values(root, name))


def _not_yaml(error: yaml.YAMLError, name: str) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or "it cannot be read"
    return f"{name}{f', line {mark.line + 1}' if mark else ''}: this is no YAML: {problem}."


def _values(root: yaml.Node, name: str) -> Mapping[str, Any]:
    values: dict[str, Any] = {}
    for path, at, node in _settings_of(root, name):
        setting = _BY_NAME.get(path)
        if setting is None:
            raise UsageError(f"{name}, line {at}: unknown setting '{path}'.")
        if setting.field in values:
            raise UsageError(f"{name}, line {at}: '{path}' is set twice.")
        values[setting.field] = _value(setting, node, name)
    return values


def _settings_of(root: yaml.Node, name: str, section: str = "") -> Iterable[tuple[str, int, yaml.Node]]:
    """Dotted name, line, node of each setting."""
    if not isinstance(root, yaml.MappingNode):
        what = f"'{section}'" if section else "the file"
        raise UsageError(f"{name}, line {root.start_mark.line + 1}: {what} must hold settings, each as 'name: value'.")
    for key, node in root.value:
        said = key.value if isinstance(key, yaml.ScalarNode) else "?"
        path = f"{section}.{said}" if section else said
        if not section and said in _SECTIONS:
            if not _is_null(node):
                yield from _settings_of(node, name, said)
        else:
            yield path, key.start_mark.line + 1, node


def _value(setting: Setting, node: yaml.Node, name: str) -> Any:
    try:
        return setting.kind(node)
    except Misplaced as error:
        raise UsageError(f"{name}, line {error.line}: {error}.") from None
    except ValueError as error:
        raise UsageError(f"{name}, line {node.start_mark.line + 1}: '{setting.name}' {error}.") from None
