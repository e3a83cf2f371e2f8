"""sandboxd/config.py: every key good and bad, where a setting may come from, what an error says."""

from __future__ import annotations

import dataclasses
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from sandboxd import config as module
from sandboxd.config import Config, load
from sandboxd.errors import ConfigError
from sandboxd.model.destination import Spool
from sandboxd.model.endpoint import Endpoint
from sandboxd.model.limits import PROFILES, Limits

QUEUE = "arn:aws:sqs:us-east-1:000000000000:failed"
GOOD: list[tuple[str, str, str, Any]] = [
    ("instance", '"a1"', "instance", "a1"),
    ("instance", '"abcdef"', "instance", "abcdef"),
    ("data_dir", '"/srv/data"', "data_dir", Path("/srv/data")),
    ("run_dir", '"/run/other"', "run_dir", Path("/run/other")),
    ("account_id", '"123456789012"', "account_id", "123456789012"),
    ("region", '"eu-central-1"', "region", "eu-central-1"),
    ("region", '"us-gov-west-1"', "region", "us-gov-west-1"),
    ("user", '"_lambda"', "user", "_lambda"),
    ("keep_alive", "0", "keep_alive", 0.0),
    ("keep_alive", "86400", "keep_alive", 86_400.0),
    ("keep_alive", "1.5", "keep_alive", 1.5),
    ("drain", "900", "drain", 900.0),
    ("api.listen", '"0.0.0.0:1"', "api_listen", ("0.0.0.0", 1)),
    ("api.listen", '"[::1]:8470"', "api_listen", ("::1", 8470)),
    ("api.listen", '"127.0.0.1:0"', "api_listen", ("127.0.0.1", 0)),
    ("api.auth", '"sigv4"', "api_auth", "sigv4"),
    ("api.auth", '"none"', "api_auth", "none"),
    ("network.pool", '"10.0.0.0/8"', "network_pool", IPv4Network("10.0.0.0/8")),
    ("network.pool", '"192.168.7.0/24"', "network_pool", IPv4Network("192.168.7.0/24")),
    ("network.resolvers", "[]", "resolvers", ()),
    ("network.resolvers", '["10.0.0.2", "::1"]', "resolvers", ("10.0.0.2", "::1")),
    ("network.resolvers", '"10.0.0.2 ::1"', "resolvers", ("10.0.0.2", "::1")),
    ("events.retry_waits", "[0.5, 3600]", "event_retry_waits", (0.5, 3600.0)),
    ("events.retry_waits", '"1 2"', "event_retry_waits", (1.0, 2.0)),
    ("events.backoff", "[1, 300]", "event_backoff", (1.0, 300.0)),
    ("events.concurrency", "4", "event_concurrency", 4),
    ("events.queue", "64", "event_queue", 64),
    (f'destinations."{QUEUE}"', '"file:failed"', "destinations", {QUEUE: Spool("failed")}),
    (f'destinations."{QUEUE}"', '"http://10.0.0.1:90/a"', "destinations", {QUEUE: Endpoint("10.0.0.1", 90, "/a")}),
    (f'destinations."{QUEUE}"', '"http://[::1]:90"', "destinations", {QUEUE: Endpoint("::1", 90, "/")}),
    (f'destinations."{QUEUE}"', '"https://a.host/?b"', "destinations", {QUEUE: Endpoint("a.host", 443, "/?b", True)}),
    ("services.endpoint_url", '"http://127.0.0.1:4566"', "services_endpoint", Endpoint("127.0.0.1", 4566, "/")),
    ("services.endpoint_url", '"https://s3.internal/"', "services_endpoint", Endpoint("s3.internal", 443, "/", True)),
    ("services.endpoint_url", '"http://[fd00::1]"', "services_endpoint", Endpoint("fd00::1", 80, "/")),
    ("services.function_endpoint_url", '"http://10.0.0.1:4566"', "services_for_functions", "http://10.0.0.1:4566"),
    ("ca_file", '"/etc/own.pem"', "ca_file", Path("/etc/own.pem")),
    ('runtimes."python3.12"', '"python3.13"', "runtimes", {"python3.12": "python3.13"}),
    ("runtimes.python3.12", '"python3.13"', "runtimes", {"python3.12": "python3.13"}),
    ("limits.profile", '"classic"', "limits", PROFILES["classic"]),
    ("limits.profile", '"current"', "limits", PROFILES["current"]),
]
BAD: list[tuple[str, str]] = [
    ("instance", '""'),
    ("instance", '"seven77"'),
    ("instance", '"UPPER"'),
    ("instance", '"a-b"'),
    ("instance", '"ok\\n"'),
    ("instance", "5"),
    ("data_dir", '"relative"'),
    ("data_dir", "true"),
    ("run_dir", '""'),
    ("account_id", '"12345678901"'),
    ("account_id", "123456789012"),
    ("region", '"nowhere"'),
    ("region", '"US-EAST-1"'),
    ("user", '"0root"'),
    ("user", '"a b"'),
    ("keep_alive", "-1"),
    ("events.retry_waits", "5"),
    ("events.retry_waits", "[1]"),
    ("events.retry_waits", "[1, 3601]"),
    ("events.backoff", "[1, true]"),
    ("events.concurrency", "0"),
    (f'destinations."{QUEUE}"', '"file:../up"'),
    (f'destinations."{QUEUE}"', '"http://10.0.0.1:0/"'),
    (f'destinations."{QUEUE}"', '"http://10.0.0:90/"'),
    (f'destinations."{QUEUE}"', '"http://a..host/"'),
    (f'destinations."{QUEUE}"', '"http://user@a.host/"'),
    (f'destinations."{QUEUE}"', '"ftp://a.host/"'),
    ("services.endpoint_url", '"127.0.0.1:4566"'),
    ("services.endpoint_url", '"http://127.0.0.1:4566/path"'),
    ("services.endpoint_url", '"http://127.0.0.1:66000"'),
    ("services.endpoint_url", "4566"),
    ("services.access_key_id", '"with space"'),
    ("services.secret_access_key", '""'),
    ("services.function_endpoint_url", '"10.0.0.1"'),
    ("services.region", '"us-east-1"'),
    ("ca_file", '"own.pem"'),
    (f'destinations."{QUEUE}"', '"http://10.0.0.1:90/ HTTP/1.1"'),
    (f'destinations."{QUEUE}"', "5"),
    ('destinations."arn:aws:lambda:us-east-1:000000000000:function:f"', '"file:failed"'),
    ('destinations."queue"', '"file:failed"'),
    ('runtimes."python3.12"', '"../python3.13"'),
    ('runtimes."../python3.12"', '"python3.13"'),
    ("runtimes.python", "3.13"),
    ("runtimes", '"python3.13"'),
    ("keep_alive", "86401"),
    ("keep_alive", "nan"),
    ("keep_alive", "true"),
    ("keep_alive", '"soon"'),
    ("drain", "901"),
    ("drain", "[]"),
    ("api.listen", '"8470"'),
    ("api.listen", '"localhost:8470"'),
    ("api.listen", '"127.0.0.1:65536"'),
    ("api.listen", '"127.0.0.1:-1"'),
    ("api.listen", "8470"),
    ("api.auth", '"basic"'),
    ("api.auth", "false"),
    ("network.pool", '"8.8.8.0/24"'),
    ("network.pool", '"10.0.0.0/25"'),
    ("network.pool", '"10.0.0.0/7"'),
    ("network.pool", '"10.0.0.1/16"'),
    ("network.pool", '"fd00::/64"'),
    ("network.pool", "10"),
    ("network.resolvers", '"example.org"'),
    ("network.resolvers", '["1.1.1.1:53"]'),
    ("network.resolvers", "[1]"),
    ("network.resolvers", "10"),
    ("limits.profile", '"old"'),
    ("limits.profile", "1"),
]
LIMITS = [field.name for field in dataclasses.fields(Limits)]


def write(directory: Path, key: str, literal: str) -> Path:
    file = directory / "sandboxd.toml"
    file.write_text(f"{key} = {literal}\n")
    return file


@pytest.mark.parametrize(("key", "literal", "name", "value"), GOOD)
def test_good_value_from_file(tmp_path: Path, key: str, literal: str, name: str, value: Any) -> None:
    loaded = load(write(tmp_path, key, literal), {})
    assert getattr(loaded, name) == value
    assert loaded.source == str(tmp_path / "sandboxd.toml")


@pytest.mark.parametrize(("key", "literal"), BAD)
def test_bad_value_names_file_key_value_and_allowed(tmp_path: Path, key: str, literal: str) -> None:
    file = write(tmp_path, key, literal)
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    error = caught.value
    key = key.replace('"', "")
    assert (error.source, error.key) == (str(file), key)
    assert error.allowed
    text = str(error)
    assert text.startswith(f"{file}: {key} = ")
    assert repr(error.value) in text
    assert text.endswith(f"allowed: {error.allowed}")


@pytest.mark.parametrize("name", LIMITS)
def test_each_limit_can_be_changed_by_itself(tmp_path: Path, name: str) -> None:
    loaded = load(write(tmp_path, f"limits.{name}", "7"), {})
    assert loaded.limits == dataclasses.replace(PROFILES["classic"], **{name: 7})


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("literal", ["0", "-1", "1.5", "true", '"many"', "1099511627776"])
def test_a_limit_is_a_positive_whole_number(tmp_path: Path, name: str, literal: str) -> None:
    with pytest.raises(ConfigError, match="a positive whole number") as caught:
        load(write(tmp_path, f"limits.{name}", literal), {})
    assert caught.value.key == f"limits.{name}"


def test_a_limit_is_laid_over_the_named_profile(tmp_path: Path) -> None:
    file = tmp_path / "sandboxd.toml"
    file.write_text('[limits]\nprofile = "current"\nconcurrency = 2\n')
    assert load(file, {}).limits == dataclasses.replace(PROFILES["current"], concurrency=2)


def test_tables_and_dotted_keys_mean_the_same(tmp_path: Path) -> None:
    file = tmp_path / "sandboxd.toml"
    file.write_text('[api]\nlisten = "127.0.0.1:9"\n')
    assert load(file, {}).api_listen == load(write(tmp_path, "api.listen", '"127.0.0.1:9"'), {}).api_listen


@pytest.mark.parametrize("key", ["nonsense", "api.port", "limits.colour", "Instance", "api"])
def test_unknown_key(tmp_path: Path, key: str) -> None:
    file = write(tmp_path, key, "1")
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    assert str(caught.value).startswith(f"{file}: {key} = 1 is not allowed; allowed: one of the keys instance, ")


def test_variable_goes_over_file(tmp_path: Path) -> None:
    file = write(tmp_path, "api.listen", '"127.0.0.1:1"')
    environ = {"SANDBOXD_API_LISTEN": "127.0.0.1:2", "SANDBOXD_LIMITS_CONCURRENCY": "3", "SANDBOXD_KEEP_ALIVE": "4"}
    loaded = load(file, environ)
    assert loaded.api_listen == ("127.0.0.1", 2)
    assert (loaded.limits.concurrency, loaded.keep_alive) == (3, 4.0)


@pytest.mark.parametrize(
    ("variable", "value", "key"),
    [
        ("SANDBOXD_INSTANCE", "TOO", "instance"),
        ("SANDBOXD_NETWORK_POOL", "x", "network.pool"),
        ("SANDBOXD_LIMITS_PIDS", "0", "limits.pids"),
        ("SANDBOXD_KEEP_ALIVE", "inf", "keep_alive"),
        ("SANDBOXD_COLOUR", "blue", "colour"),
    ],
)
def test_bad_variable_is_named(variable: str, value: str, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEFAULT_FILE", Path("/nonexistent/sandboxd.toml"))
    with pytest.raises(ConfigError) as caught:
        load(None, {variable: value})
    assert str(caught.value).startswith(f"environment variable {variable}: {key} = {value!r} is not allowed")


def test_sandboxd_config_names_the_file_and_config_goes_over_it(tmp_path: Path) -> None:
    named = tmp_path / "named.toml"
    named.write_text('instance = "one"\n')
    file = write(tmp_path, "instance", '"two"')
    assert load(None, {"SANDBOXD_CONFIG": str(named)}).instance == "one"
    assert load(file, {"SANDBOXD_CONFIG": str(named)}).instance == "two"


def test_default_file_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEFAULT_FILE", Path("/nonexistent/sandboxd.toml"))
    assert load(None, {}) == Config()
    assert load(None, {}).source == "built-in defaults"


def test_named_file_may_not_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a readable file"):
        load(tmp_path / "missing.toml", {})


@pytest.mark.parametrize("content", [b"instance = ", b"\xff\xfe", b'instance = "a"\ninstance = "b"'])
def test_not_toml(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "sandboxd.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="readable TOML") as caught:
        load(file, {})
    assert caught.value.source == str(file)


@pytest.mark.parametrize("listen", ["0.0.0.0:8470", "192.0.2.1:8470", "[::]:8470"])
def test_no_authentication_is_refused_off_loopback(tmp_path: Path, listen: str) -> None:
    file = tmp_path / "sandboxd.toml"
    file.write_text(f'[api]\nauth = "none"\nlisten = "{listen}"\n')
    with pytest.raises(ConfigError, match="not loopback") as caught:
        load(file, {})
    assert (caught.value.source, caught.value.key) == (str(file), "api.auth")


@pytest.mark.parametrize("listen", ["127.0.0.1:8470", "127.9.9.9:8470", "[::1]:8470"])
def test_no_authentication_is_allowed_on_loopback(tmp_path: Path, listen: str) -> None:
    file = tmp_path / "sandboxd.toml"
    file.write_text(f'[api]\nauth = "none"\nlisten = "{listen}"\n')
    assert load(file, {}).api_auth == "none"


KEYS = {"endpoint_url": "http://10.0.0.1:1", "access_key_id": "id", "secret_access_key": "hush"}


def test_a_key_of_the_services_is_whole_or_not_there(tmp_path: Path) -> None:
    file = tmp_path / "sandboxd.toml"

    def write_without(*left_out: str) -> Path:
        rows = (f'{key} = "{value}"\n' for key, value in KEYS.items() if key not in left_out)
        file.write_text("[services]\n" + "".join(rows))
        return file

    loaded = load(write_without(), {})
    assert (loaded.services_key_id, loaded.services_secret) == ("id", "hush")
    assert "hush" not in repr(loaded)
    load(write_without("access_key_id", "secret_access_key"), {})
    for left_out in KEYS:
        with pytest.raises(ConfigError, match="together with") as caught:
            load(write_without(left_out), {})
        assert "hush" not in str(caught.value)
    file.write_text('[services]\nsecret_access_key = "hush hush"\n')
    with pytest.raises(ConfigError, match=r"secret_access_key = '\(a secret\)'"):
        load(file, {})


def test_the_ports_of_all_endpoints() -> None:
    config = Config(
        destinations={"a": Endpoint("10.0.0.1", 90, "/"), "b": Spool("b"), "c": Endpoint("a.host", 443, "/", True)},
        services_endpoint=Endpoint("127.0.0.1", 90, "/"),
    )
    assert config.ports == (90, 443)
    assert Config().ports == ()


def test_profiles_are_the_documented_ones() -> None:
    classic, current = PROFILES["classic"], PROFILES["current"]
    assert (classic.memory_mb_max, classic.memory_mb_step, classic.billing_ms) == (3008, 64, 100)
    assert (current.memory_mb_max, current.memory_mb_step, current.billing_ms) == (10_240, 1, 1)
    for profile in (classic, current):
        assert (profile.timeout_seconds, profile.memory_mb_min, profile.concurrency) == (900, 128, 1000)
        assert (profile.zip_bytes, profile.unzipped_bytes) == (50 << 20, 250 << 20)
        assert (profile.sync_payload_bytes, profile.async_payload_bytes) == (6 << 20, 1 << 20)


def test_configuration_is_frozen_and_handed_down() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().instance = "x"  # type: ignore[misc]


def test_directories_follow_from_two() -> None:
    config = Config(data_dir=Path("/d"), run_dir=Path("/r"))
    assert config.api_socket == Path("/r/api.sock")
    assert (config.images_dir, config.code_dir, config.service_dir) == (
        Path("/d/images"), Path("/d/code"), Path("/d/service"),
    )  # fmt: skip


def test_instances_have_uids_of_their_own_that_nobody_else_hands_out() -> None:
    bases = {Config(instance=name).uid_base for name in ("main", "a", "b", "test1", "test2")}
    assert len(bases) == 5
    for base in bases:
        assert base % 65_536 == 0
        assert 1 << 30 <= base <= (1 << 31) - 65_536  # within the positive signed range that old tools can print
