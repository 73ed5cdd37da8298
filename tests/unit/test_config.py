from __future__ import annotations

import re
from pathlib import Path

import msgpack
import pytest

from stem_actors.config import SETTINGS, Settings, masked_url, parse_duration, resolve, split_app
from stem_actors.errors import ConfigError


def test_nothing_given_means_the_defaults_of_the_reference() -> None:
    settings = resolve({}, {}).settings
    assert settings.broker_url == "sqlite:///stem.db"
    assert settings.worker_queues == ("default",)
    assert (settings.prefetch_multiplier, settings.default_max_retries, settings.workers) == (2, 3, 1)
    assert (settings.visibility_timeout, settings.heartbeat_interval, settings.result_ttl) == (30.0, 10.0, 86400.0)
    assert settings.dead_letter_ttl == 30 * 86400
    assert settings.concurrency >= 1
    assert settings.name
    assert settings.admin_address == ("127.0.0.1", 9808)


def test_revocations_have_a_url_or_a_path() -> None:
    read = {
        "redis://revokes/1": "redis://revokes/1",
        "sqlite:////var/lib/stem.db": "sqlite:////var/lib/stem.db",
        "file:///revokes.stem": "file:///revokes.stem",
        "revokes.stem": "file:///revokes.stem",
        "/var/lib/stem/what is gone": "file:////var/lib/stem/what%20is%20gone",
        "/var/lib/stem/": "file:////var/lib/stem/revokes.stem",
        "./": "file:///./revokes.stem",
    }
    for text, url in read.items():
        assert resolve({}, {"STEM_REVOKE_STORE_URL": text}).settings.revoke_store_url == url
    for wrong in ("file://revokes.stem", "amqp://host", "sqlite:stem.db", "redis://host:port"):
        with pytest.raises(ConfigError, match=r"STEM_REVOKE_STORE_URL .* the path of a file, or a URL"):
            resolve({}, {"STEM_REVOKE_STORE_URL": wrong})


def test_flag_wins_over_variable_over_file_over_default(tmp_path: Path) -> None:
    file = tmp_path / "stem.toml"
    file.write_text('workers = 2\nconcurrency = 2\nname = "file"\nvisibility_timeout = "1m"\n')
    environ = {"STEM_CONFIG": str(file), "STEM_WORKERS": "3", "STEM_CONCURRENCY": "3"}
    resolved = resolve({"workers": "4"}, environ)
    assert (resolved.settings.workers, resolved.settings.concurrency, resolved.settings.name) == (4, 3, "file")
    assert resolved.settings.visibility_timeout == 60.0
    assert [resolved.sources[name] for name in ("workers", "concurrency", "name", "pool")] == [
        "--workers",
        "STEM_CONCURRENCY",
        f"{file}: name",
        "default",
    ]


def test_pyproject_holds_settings_under_tool_stem(tmp_path: Path) -> None:
    file = tmp_path / "pyproject.toml"
    file.write_text('[project]\nname = "shop"\n[tool.stem]\nqueues = ["mail", "slow"]\nenable_chaos = true\n')
    settings = resolve({"config": str(file)}, {}).settings
    assert settings.queues == ("mail", "slow")
    assert settings.enable_chaos


def test_a_file_with_an_unknown_setting_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "stem.toml"
    file.write_text("wokers = 2\n")
    with pytest.raises(ConfigError, match="wokers"):
        resolve({"config": str(file)}, {})


@pytest.mark.parametrize("content", [None, "workers = "])
def test_a_file_that_cannot_be_read_is_an_error_that_names_it(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "stem.toml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=re.escape(str(file))):
        resolve({}, {"STEM_CONFIG": str(file)})


def test_blank_values_count_as_not_set() -> None:
    resolved = resolve({"workers": " "}, {"STEM_WORKERS": "", "STEM_APP": "  "})
    assert resolved.settings.workers == 1
    assert resolved.settings.app is None
    assert resolved.sources["workers"] == "default"


def test_values_are_trimmed() -> None:
    assert resolve({}, {"STEM_WORKERS": " 3 "}).settings.workers == 3


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0.0), ("30", 30.0), ("250ms", 0.25), ("30s", 30.0), ("5m", 300.0), ("2h", 7200.0), ("1d", 86400.0)],
)
def test_durations_have_one_grammar(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds
    assert resolve({}, {"STEM_HEARTBEAT_INTERVAL": text}).settings.heartbeat_interval == seconds


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        *(("STEM_HEARTBEAT_INTERVAL", text) for text in ("-1s", "1.5s", "1 s", "1w", "s", "1S", "١s")),
        ("STEM_VISIBILITY_TIMEOUT", "0"),
        *(("STEM_WORKERS", text) for text in ("0", "-1", "x", "1.0", "1_0", "0x10")),
        *(("STEM_ENABLE_CHAOS", text) for text in ("on", "2", "truee")),
        *(
            ("STEM_BROKER_URL", text)
            for text in ("stem.db", "http://a", "sqlite", "sqlite:stem.db", "none", "redis://h:99999999/0")
        ),
        ("STEM_DEFAULT_QUEUE", "two words"),
        ("STEM_WORKER_QUEUES", "a,two words"),
        *(("STEM_APP", text) for text in ("a-b", "a:", ":app", "a.b:c d")),
        *(("STEM_CHAOS_PROBE", text) for text in ("a", "a:", ":f", "a.b:c.d")),
        ("STEM_TASKS", "a.b,c-d"),
        *(("STEM_ADMIN", text) for text in ("9808", "host:", ":1", "host:x", "host:65536")),
        ("STEM_POOL", "fork"),
        ("STEM_LOG_LEVEL", "loud"),
        ("STEM_LOG_FORMAT", "xml"),
        ("STEM_MAX_PAYLOAD_BYTES", "1"),
        ("STEM_THREADS", "0"),
        *(("STEM_MAX_TASKS_PER_EXECUTOR", text) for text in ("0", "-1", "many")),
        *(("STEM_MAX_MEMORY_PER_EXECUTOR", text) for text in ("0", "1.5GiB", "200 MiB", "200M", "-1")),
    ],
)
def test_a_value_outside_its_grammar_is_an_error_that_names_variable_and_value(variable: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve({}, {variable: text})
    assert variable in str(caught.value)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "size", "shown"),
    [
        ("1000", 1000, "1000"),
        ("1000B", 1000, "1000"),
        ("200MiB", 200 << 20, "200MiB"),
        ("1024MiB", 1 << 30, "1GiB"),
        ("8kB", 8000, "8000"),
        ("1GB", 10**9, "1000000000"),
        ("2KiB", 2048, "2KiB"),
        ("3MB", 3_000_000, "3000000"),
        ("None", None, "none"),
    ],
)
def test_sizes_have_one_grammar(text: str, size: int | None, shown: str) -> None:
    assert resolve({}, {"STEM_MAX_MEMORY_PER_EXECUTOR": text}).settings.max_memory_per_executor == size
    grammar = next(each.grammar for each in SETTINGS if each.name == "max_memory_per_executor")
    assert grammar.show(size) == shown


def test_an_error_in_a_flag_names_the_flag() -> None:
    with pytest.raises(ConfigError, match="--visibility-timeout is '3 weeks'"):
        resolve({"visibility_timeout": "3 weeks"}, {})


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("YES", True), ("1", True), ("No", False), ("0", False), ("FALSE", False)]
)
def test_booleans_have_one_grammar(text: str, value: bool) -> None:
    assert resolve({}, {"STEM_ENABLE_CHAOS": text}).settings.enable_chaos is value


def test_lists_drop_blanks_and_duplicates_and_keep_their_order() -> None:
    assert resolve({}, {"STEM_WORKER_QUEUES": "b, a,,b , c"}).settings.queues == ("b", "a", "c")


def test_a_repeated_flag_adds_up() -> None:
    assert resolve({"queues": ["a", "b,c"]}, {}).settings.queues == ("a", "b", "c")


@pytest.mark.parametrize("url", ["sqlite:///a.db", "sqlite:////tmp/a.db", "file:///a.db", "memory://", "memory:"])
def test_urls_of_every_technology_there_is_are_accepted(url: str) -> None:
    assert resolve({"broker_url": url}, {}).settings.broker_url == url


def test_results_can_be_switched_off() -> None:
    assert resolve({}, {"STEM_RESULT_BACKEND_URL": "None"}).settings.results_are_off
    assert not resolve({}, {}).settings.results_are_off


def test_channels_have_the_namespace_unless_they_have_their_own() -> None:
    assert resolve({}, {"STEM_NAMESPACE": "shop"}).settings.channel_namespace == "shop"
    assert resolve({}, {"STEM_NAMESPACE": "shop", "STEM_WORKER_NAMESPACE": "ops"}).settings.channel_namespace == "ops"


@pytest.mark.parametrize(("text", "address"), [("off", None), ("[::1]:80", ("::1", 80)), ("0.0.0.0:0", ("0.0.0.0", 0))])
def test_the_admin_address_is_read(text: str, address: tuple[str, int] | None) -> None:
    assert resolve({}, {"STEM_ADMIN": text}).settings.admin_address == address


def test_an_application_has_the_attribute_app_unless_told() -> None:
    assert split_app("shop.tasks") == ("shop.tasks", "app")
    assert split_app("shop.tasks:stem") == ("shop.tasks", "stem")


CHANGED = Settings(
    broker_url="sqlite:////tmp/a.db",
    queues=("a", "b"),
    tasks=("x.y",),
    app="m:a",
    visibility_timeout=0.25,
    enable_chaos=True,
    chaos_probe="m.n:f",
    concurrency=3,
    name="n",
    log_format="plain",
    result_backend_url="none",
    threads=2,
    max_tasks_per_executor=100,
    max_memory_per_executor=1_000_000,
    max_address_space_per_executor=2 << 30,
)


def test_settings_survive_the_way_to_another_process() -> None:
    assert Settings.from_wire(msgpack.unpackb(msgpack.packb(CHANGED.to_wire()))) == CHANGED


def test_settings_survive_the_way_through_the_environment() -> None:
    assert resolve({}, CHANGED.as_environ()).settings == CHANGED


def test_every_shown_value_reads_as_itself() -> None:
    for setting in SETTINGS:
        value = getattr(CHANGED, setting.name)
        if value not in (None, ()):
            assert setting.grammar.read(setting.grammar.show(value)) == value, setting.name


def test_every_setting_says_what_it_is_for() -> None:
    assert [setting.name for setting in SETTINGS if not setting.help] == []
    assert len({setting.variable for setting in SETTINGS}) == len(SETTINGS)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:///stem.db", "sqlite:///stem.db"),
        ("redis://user:pa@ss@host:1/0", "redis://***@host:1/0"),
        ("redis://:secret@host", "redis://***@host"),
        ("postgres://h/db?user=a&password=b&sslmode=c", "postgres://h/db?user=a&password=***&sslmode=c"),
        ("unix:///x.sock?db=0&auth_token=t#f", "unix:///x.sock?db=0&auth_token=***#f"),
    ],
)
def test_secrets_of_a_url_are_not_shown(url: str, shown: str) -> None:
    assert masked_url(url) == shown


def test_an_error_about_a_url_does_not_show_its_secrets() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve({}, {"STEM_BROKER_URL": "amqp://me:hunter2@host"})
    assert "hunter2" not in str(caught.value)
    assert "sqlite" in str(caught.value)
