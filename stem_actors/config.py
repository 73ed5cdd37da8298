"""Settings: each is declared once, in the fields of `Settings`, and read once, by `resolve`.

The first of these that names a setting wins: command-line flag, environment variable, the file named by `--config` or
`STEM_CONFIG`, default. A value that does not fit its grammar is an error that names where it came from; nothing falls back in
silence. Durations are seconds here, whatever they were written as.
"""

from __future__ import annotations

import os
import re
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from stem_actors.errors import ConfigError

__all__ = [
    "SETTINGS",
    "Grammar",
    "Resolved",
    "Setting",
    "Settings",
    "file_url",
    "masked_url",
    "parse_duration",
    "resolve",
    "split_app",
]

POSTGRES_SCHEMES = ("postgres", "postgresql", "postgres+ssl", "postgresql+ssl")
SCHEMES = ("sqlite", "file", "memory", "redis", "rediss", "unix", *POSTGRES_SCHEMES)
"""What a store's URL may start with: the technologies there is an adapter for."""

FILE_SCHEMES = ("sqlite", "file")
RESULTS_OFF = "none"
REVOKES = "revokes.stem"


# ---------------------------------------------------------------- grammars


@dataclass(frozen=True, slots=True)
class Grammar:
    """How a value is written. `read` raises ValueError, `wanted` then says what would have been right; `show` writes it again."""

    wanted: str
    read: Callable[[str], Any]
    show: Callable[[Any], str] = str


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"([0-9]+)(ms|s|m|h|d)?")
_WORD = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_HAS_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_PYTHON_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


def parse_duration(text: str) -> float:
    """Seconds of `250ms`, `30s`, `5m`, `2h`, `1d` or a bare number of seconds; else ValueError."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return int(match[1]) * _UNITS[match[2] or "s"]


def _show_duration(seconds: float) -> str:
    """As `parse_duration` reads it, in the largest unit that leaves a whole number."""
    milliseconds = round(seconds * 1000)
    sizes = {unit: round(size * 1000) for unit, size in _UNITS.items()}
    unit = next(unit for unit in ("d", "h", "m", "s", "ms") if milliseconds % sizes[unit] == 0) if milliseconds else "s"
    return f"{milliseconds // sizes[unit]}{unit}"


def duration(above_zero: bool = False, least: float = 0.0) -> Grammar:
    def read(text: str) -> float:
        seconds = parse_duration(text)
        if (above_zero and not seconds) or seconds < least:
            raise ValueError(text)
        return seconds

    wanted = "a duration: a whole number with ms, s, m, h or d (none: seconds), such as 250ms, 30 or 5m"
    bound = ", above 0" if above_zero else f", {_show_duration(least)} at least" if least else ""
    return Grammar(wanted + bound, read, _show_duration)


def integer(low: int, high: int | None = None) -> Grammar:
    def read(text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]+", text):
            raise ValueError(text)
        number = int(text)
        if number < low or (high is not None and number > high):
            raise ValueError(text)
        return number

    return Grammar(f"a whole number from {low}" + ("" if high is None else f" to {high}"), read)


_SIZES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "kB": 10**3, "MB": 10**6, "GB": 10**9}
_SIZE = re.compile(r"([0-9]+)(B|KiB|MiB|GiB|kB|MB|GB)?")


def _read_size(text: str) -> int:
    match = _SIZE.fullmatch(text)
    if match is None or not int(match[1]):
        raise ValueError(text)
    return int(match[1]) * _SIZES[match[2] or "B"]


def _show_size(size: int) -> str:
    """As `_read_size` reads it, in the largest binary unit that leaves a whole number."""
    unit = next((unit for unit in ("GiB", "MiB", "KiB") if size % _SIZES[unit] == 0), "")
    return f"{size // _SIZES[unit or 'B']}{unit}"


def _read_number(text: str) -> float:
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) or not float(text):
        raise ValueError(text)
    return float(text)


def _read_range(text: str) -> tuple[int, int]:
    low, colon, high = text.partition(":")
    if not (colon and low.isascii() and low.isdigit() and high.isascii() and high.isdigit() and 1 <= int(low) <= int(high)):
        raise ValueError(text)
    return int(low), int(high)


def or_none(grammar: Grammar) -> Grammar:
    """`grammar`, or `none` for no limit."""

    def read(text: str) -> Any:
        return None if text.lower() == "none" else grammar.read(text)

    return Grammar(f"{grammar.wanted}, or none", read, lambda value: "none" if value is None else grammar.show(value))


def choice(*words: str) -> Grammar:
    def read(text: str) -> str:
        return words[words.index(text.lower())]

    return Grammar(f"one of {', '.join(words)}", read)


def _read_boolean(text: str) -> bool:
    return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]


def _read_path(text: str) -> str:
    if "\0" in text:
        raise ValueError(text)
    return text


def _read_word(text: str) -> str:
    if not _WORD.fullmatch(text):
        raise ValueError(text)
    return text


def _read_words(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_read_word(item) for item in map(str.strip, text.split(",")) if item))


def _read_modules(text: str) -> tuple[str, ...]:
    modules = tuple(dict.fromkeys(item for item in map(str.strip, text.split(",")) if item))
    if not all(_PYTHON_NAME.fullmatch(module) for module in modules):
        raise ValueError(text)
    return modules


def _read_url(text: str) -> str:
    scheme, colon, rest = text.partition(":")
    if not colon or scheme.lower() not in SCHEMES:
        raise ValueError(text)
    if scheme.lower() in FILE_SCHEMES and not re.fullmatch(r"///[^?#]+", rest):
        raise ValueError(text)
    if scheme.lower() not in POSTGRES_SCHEMES:  # where there may be several hosts
        urlsplit(text).port  # noqa: B018  # raises ValueError where there is no such port
    return text


def _read_backend(text: str) -> str:
    return RESULTS_OFF if text.lower() == RESULTS_OFF else _read_url(text)


def _read_place(text: str) -> str:
    return _read_url(file_url(text))


def file_url(place: str) -> str:
    """A URL as it is; a path as the URL of an SQLite file: there, or where it ends with a slash, called `revokes.stem` in it."""
    if not place or _HAS_SCHEME.match(place):
        return place
    return f"file:///{quote(place + REVOKES if place.endswith('/') else place)}"


def _read_app(text: str) -> str:
    module, colon, attribute = text.partition(":")
    if not _PYTHON_NAME.fullmatch(module) or (colon and not _PYTHON_NAME.fullmatch(attribute)):
        raise ValueError(text)
    return text


def _read_function(text: str) -> str:
    module, _, function = text.partition(":")
    if not _PYTHON_NAME.fullmatch(module) or not function.isidentifier():
        raise ValueError(text)
    return text


def _read_address(text: str) -> str:
    if text.lower() == "off":
        return "off"
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(text)
    return text


def masked_url(url: str) -> str:
    """A URL as it may be shown: without user name, password and the secrets of its query."""
    url = re.sub(r"//[^/?#]*@", "//***@", url)
    return re.sub(r"([?&][^=&#]*(?:pass|secret|token|key)[^=&#]*=)[^&#]*", r"\1***", url, flags=re.IGNORECASE)


def _join(words: tuple[str, ...]) -> str:
    return ",".join(words)


_SCHEME_LIST = ", ".join(f"{scheme}://" for scheme in SCHEMES)
BOOLEAN = Grammar("true, 1, yes, false, 0 or no", _read_boolean, lambda value: "true" if value else "false")
PATH = Grammar("the path of a file", _read_path)
WORD = Grammar("a name: 1 to 128 letters, digits or _ . : -", _read_word)
WORDS = Grammar("names with commas between them, each of 1 to 128 letters, digits or _ . : -", _read_words, _join)
MODULES = Grammar("Python modules with commas between them", _read_modules, _join)
URL = Grammar(
    f"a URL with a supported scheme ({_SCHEME_LIST}), such as sqlite:///stem.db or, absolute, sqlite:////var/lib/stem.db",
    _read_url,
    masked_url,
)
SIZE = Grammar(
    "a size: a whole number above 0 with B, KiB, MiB, GiB, kB, MB or GB (none: bytes), such as 200MiB", _read_size, _show_size
)
NUMBER = Grammar("a number above 0, such as 2 or 0.5", _read_number, lambda value: f"{value:g}")
RANGE = Grammar("MIN:MAX, whole numbers from 1, such as 1:8", _read_range, lambda value: f"{value[0]}:{value[1]}")
BACKEND = Grammar(f"{RESULTS_OFF}, or {URL.wanted}", _read_backend, masked_url)
PLACE = Grammar(f"the path of a file, or {URL.wanted}", _read_place, masked_url)
APP = Grammar("MODULE or MODULE:ATTRIBUTE, such as shop.tasks:app", _read_app)
FUNCTION = Grammar("MODULE:FUNCTION", _read_function)
ADDRESS = Grammar("HOST:PORT or off", _read_address)


def split_app(app: str) -> tuple[str, str]:
    """Module and attribute of `MODULE[:ATTRIBUTE]`; the attribute is `app` unless given."""
    module, _, attribute = app.partition(":")
    return module, attribute or "app"


# ---------------------------------------------------------------- the table


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as declared. `flags`: those of `stem-node`, and of `stem` where it has them; else by variable and file only."""

    name: str
    variable: str
    flags: tuple[str, ...]
    grammar: Grammar
    help: str


def _setting(grammar: Grammar, help: str, default: object, flags: str = "", variable: str = "") -> Any:
    """A field of `Settings` with all that `Setting` says of it. A default that can be called is called for each `Settings`."""
    meta = {"grammar": grammar, "help": help, "flags": tuple(flags.split()), "variable": variable}
    return field(default_factory=default, metadata=meta) if callable(default) else field(default=default, metadata=meta)


def _host_name() -> str:
    """The host's name, with what a name may not hold replaced."""
    return re.sub(r"[^A-Za-z0-9_.:-]", "-", os.uname().nodename)[:128] or "node"


def _processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _log_format() -> str:
    return "pretty" if sys.stderr.isatty() else "json"


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set, with the values in force. Durations in seconds, sizes in bytes."""

    broker_url: str = _setting(URL, "where tasks wait", "sqlite:///stem.db", "--broker")
    result_backend_url: str | None = _setting(
        BACKEND, "where results are kept (default: the broker); none: nowhere", None, "--backend"
    )
    revoke_store_url: str | None = _setting(
        PLACE,
        "where revocations are kept (default: with the results, else the broker); a path is an SQLite file, "
        f"and one that ends with a slash the directory of {REVOKES}",
        None,
    )
    rate_limit_url: str | None = _setting(URL, "where rate limits are kept count of (default: the broker)", None)
    namespace: str = _setting(WORD, "prefix of everything in the stores", "stem", "--namespace")
    worker_namespace: str | None = _setting(WORD, "prefix of heartbeat and control channels (default: the namespace)", None)
    default_queue: str = _setting(WORD, "queue of tasks that name none", "default")
    queues: tuple[str, ...] = _setting(
        WORDS, "queues to work on (default: the default queue)", (), "--queue -q", "STEM_WORKER_QUEUES"
    )
    default_max_retries: int = _setting(integer(0), "retries of tasks that set none", 3)
    app: str | None = _setting(APP, "the application object, MODULE[:ATTRIBUTE]", None, "--app -A")
    tasks: tuple[str, ...] = _setting(MODULES, "further modules that define tasks", ())

    name: str = _setting(WORD, "name of this node (default: the host's)", _host_name, "--name -n")
    workers: int = _setting(integer(1), "worker processes", 1, "--workers")
    concurrency: int = _setting(
        integer(1), "executor processes of each worker (default: one per processor)", _processors, "--concurrency -c"
    )
    autoscale: tuple[int, int] | None = _setting(
        or_none(RANGE),
        "let each worker's executors follow its work, between MIN and MAX of them (default: none)",
        None,
        "--autoscale",
    )
    autoscale_up_step: int = _setting(integer(1), "executors more at a time", 1)
    autoscale_down_step: int = _setting(integer(1), "executors fewer at a time", 1)
    autoscale_backlog_per_executor: float = _setting(NUMBER, "waiting tasks for each executor that are worth another one", 1.0)
    autoscale_idle_period: float = _setting(duration(above_zero=True), "time without any task before one goes", 30.0)
    autoscale_tick: float = _setting(duration(least=0.1), "time between two looks at the queues", 2.0)
    autoscale_up_cooldown: float = _setting(duration(above_zero=True), "time between two steps upwards", 5.0)
    autoscale_down_cooldown: float = _setting(duration(above_zero=True), "time between two steps downwards", 10.0)
    prefetch_multiplier: int = _setting(
        integer(1), "deliveries held per executor, running and waiting", 2, "--prefetch-multiplier"
    )
    threads: int = _setting(
        integer(1), "tasks at once in one executor, each in a thread, unless they are coroutines", 1, "--threads"
    )
    async_slots: int = _setting(integer(1), "coroutine tasks at once in one executor", 1000)
    pool: str = _setting(choice("forkserver", "spawn"), "how executors are started", "forkserver", "--pool")
    max_tasks_per_executor: int | None = _setting(
        or_none(integer(1)), "replace an executor after so many tasks (default: none)", None, "--max-tasks-per-executor"
    )
    max_memory_per_executor: int | None = _setting(
        or_none(SIZE),
        "replace an executor that holds so much memory after a task (default: none)",
        None,
        "--max-memory-per-executor",
    )
    max_address_space_per_executor: int | None = _setting(
        or_none(SIZE),
        "more memory than this a task cannot get: it fails with MemoryError (default: none)",
        None,
        "--max-address-space-per-executor",
    )
    burst: bool = _setting(
        BOOLEAN, "leave when no task is ready and none runs here; delayed ones are not waited for", False, "--burst"
    )
    reload: bool = _setting(
        BOOLEAN, "restart the workers when a .py file below the working directory changes; for development", False, "--reload"
    )
    visibility_timeout: float = _setting(
        duration(above_zero=True), "how long a lease lasts unless renewed", 30.0, "--visibility-timeout"
    )
    heartbeat_interval: float = _setting(duration(), "time between two heartbeats of a worker; 0: off", 10.0)
    max_deliveries: int = _setting(integer(1), "deaths charged to a task before it is set aside as poison", 5)
    unregistered_max_deliveries: int = _setting(integer(1), "times a task with an unknown name is handed back", 10)

    drain_timeout: float = _setting(duration(), "time for running tasks to end when the node leaves", 20.0, "--drain-timeout")
    soft_grace_period: float = _setting(duration(), "time for interrupted tasks to end", 5.0)
    force_shutdown_after: float = _setting(duration(), "time between cancelling a task and killing its executor", 10.0)

    result_ttl: float = _setting(duration(above_zero=True), "how long results are kept", 86400.0)
    dead_letter_ttl: float = _setting(duration(), "how long dead letters are kept; 0: for ever", 30 * 86400.0)
    sqlite_synchronous: str = _setting(
        choice("full", "normal"), "whether SQLite waits for the disk; normal: a power cut may lose the last tasks", "full"
    )
    accept_data_loss: bool = _setting(
        BOOLEAN, "work on a Redis that drops tasks when its memory is full", False, "--accept-data-loss"
    )
    tls_ca_cert: str | None = _setting(PATH, "file with the authorities to trust over TLS (default: the system's)", None)
    tls_client_cert: str | None = _setting(PATH, "our certificate, for servers that ask for one; needs its key", None)
    tls_client_key: str | None = _setting(PATH, "the key of our certificate", None)
    tls_allow_insecure: bool = _setting(BOOLEAN, "do not verify certificates; for debugging", False)
    max_payload_bytes: int = _setting(integer(1024, 1 << 30), "size of an encoded message or result at most", 262_144)

    admin: str = _setting(
        ADDRESS, "where the node serves /livez, /readyz and /metrics; port 0: any; off", "127.0.0.1:9808", "--admin"
    )
    pidfile: str | None = _setting(PATH, "file that names the node's process, for `stem worker healthcheck`", None, "--pidfile")
    metrics_max_tasks: int = _setting(integer(0), "task names with metrics of their own; others are counted together", 200)
    log_level: str = _setting(
        choice("debug", "info", "warning", "error", "critical"), "what is logged at least", "info", "--log-level -l"
    )
    log_format: str = _setting(
        choice("pretty", "plain", "json"),
        "how log lines look (default: pretty on a terminal, else json)",
        _log_format,
        "--log-format",
    )
    enable_chaos: bool = _setting(BOOLEAN, "obey commands that kill actors", False, "--enable-chaos")
    chaos_probe: str | None = _setting(
        FUNCTION, "gets the stores of a worker and puts others in their place; obeyed only where chaos is enabled", None
    )

    @property
    def results_are_off(self) -> bool:
        return self.result_backend_url == RESULTS_OFF

    @property
    def worker_queues(self) -> tuple[str, ...]:
        """The queues a worker consumes: never none."""
        return self.queues or (self.default_queue,)

    @property
    def channel_namespace(self) -> str:
        """The prefix of heartbeat and control channels."""
        return self.worker_namespace or self.namespace

    @property
    def admin_address(self) -> tuple[str, int] | None:
        """Host and port of the admin server; None: off."""
        if self.admin == "off":
            return None
        host, _, port = self.admin.rpartition(":")
        return host.strip("[]"), int(port)

    def to_wire(self) -> dict[str, Any]:
        """A map of msgpack types, for another process of this version."""
        values = ((each.name, getattr(self, each.name)) for each in SETTINGS)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values}

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Settings:
        """What `to_wire` was made of."""
        values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in wire.items()}
        return cls(**values)

    def as_environ(self) -> dict[str, str]:
        """Variables that make another process resolve to the same settings."""
        values = {each.variable: (each, getattr(self, each.name)) for each in SETTINGS}
        return {variable: _text(each, value) for variable, (each, value) in values.items() if value not in (None, ())}


def _text(setting: Setting, value: Any) -> str:
    """A value as its variable would hold it, secrets and all."""
    return str(value) if setting.grammar.show is masked_url else setting.grammar.show(value)


SETTINGS: tuple[Setting, ...] = tuple(
    Setting(
        each.name,
        each.metadata["variable"] or f"STEM_{each.name.upper()}",
        each.metadata["flags"],
        each.metadata["grammar"],
        each.metadata["help"],
    )
    for each in fields(Settings)
)


# ---------------------------------------------------------------- resolving


@dataclass(frozen=True, slots=True)
class Resolved:
    """The settings in force and, by name, where each came from: a flag, a variable, a file or `default`."""

    settings: Settings
    sources: Mapping[str, str]


def resolve(flags: Mapping[str, object], environ: Mapping[str, str]) -> Resolved:
    """Work out every setting. `flags` holds by setting's name what the command line gave: text, a list of texts, True or None.

    Entries of `flags` that name no setting are not looked at, so a parsed command line can be passed as it is. `config` (or
    `STEM_CONFIG`) names a TOML file: settings by name, at the top or under `[tool.stem]`.

    Raises:
        ConfigError: a value does not fit; it names flag, variable or file, the value and what would fit.
    """
    path = _flag_text(flags.get("config")) or environ.get("STEM_CONFIG", "").strip()
    filed = _read_file(path) if path else {}
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for setting in SETTINGS:
        candidates = (
            (setting.flags[0] if setting.flags else setting.name, _flag_text(flags.get(setting.name))),
            (setting.variable, environ.get(setting.variable, "").strip()),
            (f"{path}: {setting.name}", filed.get(setting.name, "")),
        )
        for source, text in candidates:
            if text:
                values[setting.name] = read_value(setting.grammar, text, source)
                sources[setting.name] = source
                break
        else:
            sources[setting.name] = "default"
    return Resolved(Settings(**values), sources)


def read_value(grammar: Grammar, text: str, source: str) -> Any:
    """Parse `text`, or raise a ConfigError that names its source."""
    try:
        return grammar.read(text.strip())
    except (ValueError, KeyError):
        shown = masked_url(text) if grammar in (URL, BACKEND, PLACE) else text
        raise ConfigError(f"{source} is {shown!r}, which is not {grammar.wanted}") from None


def _flag_text(value: object) -> str:
    """A flag's value as a variable would hold it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value).strip()


def _read_file(path: str) -> dict[str, str]:
    """The settings of a TOML file, as texts."""
    try:
        document: dict[str, Any] = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"the configuration file {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no TOML: {error}") from error
    if Path(path).name == "pyproject.toml" or isinstance(document.get("tool"), dict):
        document = document.get("tool", {}).get("stem", {})
    unknown = sorted(set(document) - {setting.name for setting in SETTINGS})
    if unknown:
        raise ConfigError(f"{path}: there is no setting called {unknown[0]!r}; `stem config show` lists them all")
    return {name: _flag_text(value) for name, value in document.items()}
