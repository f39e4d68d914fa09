"""The language of `-o`: what mount(8), fstab and FUSE users write, turned into the mount command's own options.

Owns: splitting a list of options, the meaning of the generic ones, the sentence that refuses the rest.
Must not know: which options the mount command has (it is handed their names), what they do, mount(8)'s argument order. No I/O.

Each option of the list is, in this order,
1. `ro` and `rw`: the command's `--read-only`;
2. an option of the command itself, with `-` or `_` alike: `name=value`, or `name` where it is a flag (`name=no` takes it back);
3. for the kernel: handed on;
4. for somebody else (mount(8), systemd, libfuse's habits): accepted, nothing to do;
5. refused by its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import click

from s3mount.errors import UsageError

# What libfuse hands to mount(2), as flags or as text. The atime family has no effect on FUSE, but shows in /proc/mounts.
# With auto_unmount a mount whose process was killed comes off at once (fusermount3 waits for that): mount -a then mounts it anew. It is no
# default: what is written meanwhile lands in the directory below, where an error would have said so.
KERNEL = frozenset({"nosuid", "nodev", "noexec", "noatime", "nodiratime", "sync", "dirsync", "auto_unmount"})
KERNEL_VALUES = ("context=", "fscontext=", "defcontext=", "rootcontext=", "max_read=")

# The kernel's defaults, spelled out: each takes the other one back.
DEFAULTS = {"suid": "nosuid", "dev": "nodev", "exec": "noexec", "async": "sync", "atime": "noatime", "diratime": "nodiratime"}

# Words for mount(8), systemd and libfuse: they have done their work before we are called, or ask for what is the case anyway.
IGNORED = frozenset(
    {"defaults", "auto", "noauto", "nofail", "_netdev", "_rnetdev"}
    | {"user", "users", "nouser", "owner", "noowner", "group", "nogroup"}
    | {"relatime", "norelatime", "strictatime", "nostrictatime", "lazytime", "nolazytime"}
    | {"silent", "loud", "mand", "nomand", "iversion", "noiversion"}
    | {"default_permissions", "big_writes", "splice_read", "splice_write", "splice_move"}
)
IGNORED_PREFIXES = ("x-", "X-", "comment=", "user=", "helper=", "uhelper=", "fsname=", "subtype=")

YES = frozenset({"1", "yes", "true", "on"})
NO = frozenset({"0", "no", "false", "off"})


@dataclass(frozen=True, slots=True)
class Known:
    """An option of the mount command: how it is spelled there, and whether a value follows."""

    spelling: str
    takes_value: bool


@dataclass(frozen=True, slots=True)
class Translated:
    """`arguments` for the mount command, `kernel` for mount(2), and the `unknown` that nobody claims."""

    arguments: tuple[str, ...]
    kernel: tuple[str, ...]
    unknown: tuple[str, ...]


@dataclass(slots=True)
class _Draft:
    arguments: dict[str, str] = field(default_factory=dict)
    kernel: dict[str, None] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)


def split_options(text: str) -> list[str]:
    """The options of a comma-separated list; a comma inside "double quotes" or behind a backslash belongs to its option."""
    options, current, quoted, escaped = [], [], False, False
    for character in text:
        if escaped or (character not in '\\",' or (character == "," and quoted)):
            current.append(character)
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == '"':
            quoted = not quoted
        else:
            options.append("".join(current))
            current = []
    return [option for option in (*options, "".join(current)) if option]


def join_options(options: Iterable[str]) -> str:
    """The reverse of `split_options`."""
    return ",".join(option.replace("\\", "\\\\").replace(",", "\\,").replace('"', '\\"') for option in options)


def translate(options: Sequence[str], known: Mapping[str, Known]) -> Translated:
    """Sort *options*; a later one replaces an earlier one of the same name. Raises UsageError where a value makes no sense."""
    draft = _Draft()
    for option in options:
        name, equals, value = option.partition("=")
        _take(draft, option, name.replace("_", "-"), value if equals else None, known)
    return Translated(tuple(draft.arguments.values()), tuple(draft.kernel), tuple(draft.unknown))


def _take(draft: _Draft, option: str, name: str, value: str | None, known: Mapping[str, Known]) -> None:
    if option in ("ro", "rw"):
        _take_flag(draft, "read-only", Known("--read-only", takes_value=False), "yes" if option == "ro" else "no")
    elif name in known and not (value is None and known[name].takes_value and option in KERNEL):
        _take_own(draft, name, known[name], value)
    elif option in KERNEL or option.startswith(KERNEL_VALUES):
        draft.kernel[option] = None
    elif option in DEFAULTS:
        draft.kernel.pop(DEFAULTS[option], None)
    elif option not in IGNORED and not option.startswith(IGNORED_PREFIXES):
        draft.unknown.append(option)


def _take_own(draft: _Draft, name: str, option: Known, value: str | None) -> None:
    if not option.takes_value:
        _take_flag(draft, name, option, "yes" if value is None else value)
    elif value is None:
        raise UsageError(f"The option -o {name} needs a value: -o {name}=VALUE.")
    else:
        draft.arguments[name] = f"{option.spelling}={value}"


def _take_flag(draft: _Draft, name: str, option: Known, value: str) -> None:
    if value.lower() in YES:
        draft.arguments[name] = option.spelling
    elif value.lower() in NO:
        draft.arguments.pop(name, None)
    else:
        raise UsageError(f"The option -o {name} is on or off and takes yes or no, not {value!r}.")


def refuse_unknown(unknown: Sequence[str]) -> None:
    """Raise UsageError with the names of the options that nobody claims."""
    if "remount" in unknown:
        raise UsageError("A mount cannot be changed with -o remount: unmount it and mount it again.")
    if unknown:
        names = ", ".join(option.partition("=")[0] for option in unknown)
        raise UsageError(f"Unknown mount option{'s' if len(unknown) > 1 else ''}: {names}.")


def options_of(command: click.Command) -> dict[str, Known]:
    """The long options of *command* by name, for `translate`."""
    found: dict[str, Known] = {}
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            takes_value = not (parameter.is_flag or parameter.count)
            for spelling in (*parameter.opts, *parameter.secondary_opts):
                if spelling.startswith("--"):
                    found[spelling[2:].replace("_", "-")] = Known(spelling, takes_value)
    return found


class ListedOptionsCommand(click.Command):
    """A command that understands its own options in `-o name=value,name,...` too.

    Declare the option `-o` (multiple); its function then gets only what is for the kernel, each checked, one per element.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, expand(args, options_of(self)))


def expand(arguments: Sequence[str], known: Mapping[str, Known]) -> list[str]:
    """Replace each `-o LIST` among *arguments* by the options it names; the kernel's stay, one `-o` each. Raises UsageError."""
    rest = list(arguments)
    expanded: list[str] = []
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            return [*expanded, argument, *rest]
        if argument == "-o" and rest:
            expanded += _expanded(rest.pop(0), known)
        elif argument.startswith("-o") and len(argument) > 2:
            expanded += _expanded(argument[2:], known)
        else:
            expanded.append(argument)
    return expanded


def _expanded(text: str, known: Mapping[str, Known]) -> list[str]:
    translated = translate(split_options(text), known)
    refuse_unknown(translated.unknown)
    return [*translated.arguments, *(word for option in translated.kernel for word in ("-o", option))]
