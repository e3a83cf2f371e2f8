"""The one configuration: parsed once, frozen, handed down; nothing reads a setting from anywhere else.

Room: all. May: read the configuration file and SANDBOXD_* variables, once.
"""

from __future__ import annotations

import os
import re
import tomllib
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from ipaddress import IPv4Network, ip_address
from pathlib import Path
from typing import Any

from sandboxd.errors import ConfigError
from sandboxd.model import destination, endpoint
from sandboxd.model.destination import Destination
from sandboxd.model.endpoint import Endpoint
from sandboxd.model.limits import PROFILES, Limits

DEFAULT_FILE = Path("/etc/sandboxd/sandboxd.toml")
ENVIRONMENT_PREFIX = "SANDBOXD_"
_NO_SETTINGS = ("SANDBOXD_CONFIG", "SANDBOXD_ACCOUNT")  # the one says where they are, the other is a command's
UIDS_PER_INSTANCE = 65_536


@dataclass(frozen=True, slots=True)
class Config:
    """Every setting of one daemon; times in seconds, sizes as their names say."""

    instance: str = "main"  # prefix of every kernel object, so that two daemons live side by side
    data_dir: Path = Path("/var/lib/sandboxd")
    run_dir: Path = Path("/run/sandboxd")
    account_id: str = "000000000000"
    region: str = "us-east-1"
    user: str = "sandboxd"  # whom the service runs as, and the group that may use api.sock
    keep_alive: float = 45 * 60
    eviction: str = "greedy-dual"  # which idle environments go first when memory is wanted
    memory: int = 0  # MB that environments may hold before idle ones go; 0: half of the machine's
    disk_floor: int = 512  # MB that stay free on the disk of data_dir: below, no environment is made
    drain: float = 30
    api_listen: tuple[str, int] = ("127.0.0.1", 8470)
    api_auth: str = "sigv4"
    function_urls: str = ""  # scheme, domain and port of functions' URLs; empty: http://localhost and api_listen's port
    network_pool: IPv4Network = field(default_factory=lambda: IPv4Network("10.210.0.0/16"))
    resolvers: tuple[str, ...] = ()  # whom names are asked of; none: those of /etc/resolv.conf
    event_retry_waits: tuple[float, ...] = (60, 120)  # before the two retries of an event whose function failed
    event_backoff: tuple[float, ...] = (1, 300)  # first and longest pause after a throttle or an error of the system
    event_concurrency: int = 16  # events of one function that run at one time
    event_queue: int = 1024  # MB of events that wait before the oldest go
    destinations: Mapping[str, Destination] = field(default_factory=dict)  # by ARN
    services_endpoint: Endpoint | None = None  # where S3, SQS and SNS are
    services_key_id: str = ""  # without one: the account's number, by which some such servers tell accounts apart
    services_secret: str = field(default="", repr=False)
    services_for_functions: str = ""  # AWS_ENDPOINT_URL
    ca_file: Path | None = None  # what https endpoints are checked by; none: what the host trusts
    runtimes: Mapping[str, str] = field(default_factory=dict)  # whose image serves a runtime, where it is another's
    limits_profile: str = "classic"
    limits: Limits = field(default_factory=Limits)
    source: str = "built-in defaults"

    @property
    def api_socket(self) -> Path:
        """Where the command line finds the daemon."""
        return self.run_dir / "api.sock"

    @property
    def images_dir(self) -> Path:
        """Root's: one directory per image digest, and one `<runtime>.json` that names the digest in use."""
        return self.data_dir / "images"

    @property
    def code_dir(self) -> Path:
        """Root's: one sealed directory per code package, named by the package's SHA-256 in hex."""
        return self.data_dir / "code"

    @property
    def service_dir(self) -> Path:
        """The service's own: database, packages as uploaded, logs."""
        return self.data_dir / "service"

    @property
    def ports(self) -> tuple[int, ...]:
        """TCP ports that the service may connect to: those of the endpoints that the configuration names."""
        return tuple(sorted({endpoint.port for endpoint in self.endpoints}))

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Those that the service may connect to."""
        named = [*self.destinations.values(), self.services_endpoint]
        return tuple(one for one in named if isinstance(one, Endpoint))

    @property
    def uid_base(self) -> int:
        """First of the host uids of this instance's environments: its name picks one of 2,048 blocks above 2^30,
        where no distribution, useradd or systemd (DynamicUser, nspawn) hands out any."""
        return (1 << 30) + UIDS_PER_INSTANCE * (zlib.crc32(self.instance.encode()) % 2048)


def _matching(pattern: str, allowed: str) -> Callable[[Any], str]:
    def convert(value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise ValueError(allowed)
        return value

    return convert


def _path(value: Any) -> Path:
    if not isinstance(value, str) or not value.startswith("/"):
        raise ValueError("an absolute path")
    return Path(value)


def _seconds(low: float, high: float) -> Callable[[Any], float]:
    def convert(value: Any) -> float:
        number = _number(value, float)
        if number is None or not low <= number <= high:
            raise ValueError(f"seconds from {low:g} to {high:g}")
        return float(number)

    return convert


def _two_waits(value: Any) -> tuple[float, ...]:
    items = value.split() if isinstance(value, str) else value if isinstance(value, list) else []
    numbers = [_number(item, float) for item in items]
    if len(numbers) != 2 or not all(number is not None and 0.01 <= number <= 3600 for number in numbers):
        raise ValueError("two numbers of seconds from 0.01 to 3600")
    return tuple(numbers)


def _listen(value: Any) -> tuple[str, int]:
    host, _, port = str(value).rpartition(":")
    try:
        address, number = ip_address(host.strip("[]")), int(port)
    except ValueError:
        number = -1
    if not 0 <= number <= 65_535:
        raise ValueError("ADDRESS:PORT, such as 127.0.0.1:8470")
    return str(address), number


def _network(value: Any) -> IPv4Network:
    try:
        network = IPv4Network(value)
    except ValueError:
        network = None
    if network is None or not 8 <= network.prefixlen <= 24 or not network.is_private:
        raise ValueError("a private IPv4 network of /8 to /24, such as 10.210.0.0/16")
    return network


def _addresses(value: Any) -> tuple[str, ...]:
    texts = value.split() if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) and _is_address(text) for text in texts):
        raise ValueError("IP addresses, as a list or as a text with spaces between them")
    return tuple(texts)


def _is_address(text: str) -> bool:
    try:
        return bool(ip_address(text))
    except ValueError:
        return False


def _services(value: Any) -> Endpoint:
    try:
        found = endpoint.parse(value if isinstance(value, str) else "")
    except ValueError:
        found = None
    if found is None or found.path != "/":
        raise ValueError('"http://HOST:PORT" or "https://HOST:PORT"')
    return found


def _url(value: Any) -> str:
    _services(value)
    return str(value)


def _positive(value: Any) -> int:
    number = _number(value, int)
    if number is None or not 0 < number < 1 << 40:
        raise ValueError("a positive whole number")
    return int(number)


def _number(value: Any, kind: type[Any]) -> Any:
    """The number that a TOML value or an environment variable's text is, or None."""
    if isinstance(value, bool) or not isinstance(value, int | kind | str):
        return None
    try:
        return kind(value)
    except ValueError:
        return None


_KEYS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "instance": ("instance", _matching(r"[a-z0-9]{1,6}", "1 to 6 of a-z and 0-9")),
    "data_dir": ("data_dir", _path),
    "run_dir": ("run_dir", _path),
    "account_id": ("account_id", _matching(r"\d{12}", "12 digits")),
    "region": ("region", _matching(r"[a-z]{2}(-[a-z]+)+-\d", "an AWS region name, such as us-east-1")),
    "user": ("user", _matching(r"[a-z_][a-z0-9_-]{0,31}", "a user name")),
    "keep_alive": ("keep_alive", _seconds(0, 86_400)),
    "eviction": ("eviction", _matching("greedy-dual|oldest-first", '"greedy-dual" or "oldest-first"')),
    "memory": ("memory", _positive),
    "disk_floor": ("disk_floor", _positive),
    "drain": ("drain", _seconds(0, 900)),
    "api.listen": ("api_listen", _listen),
    "api.auth": ("api_auth", _matching(r"sigv4|none", '"sigv4" or "none"')),
    "api.function_urls": (
        "function_urls",
        _matching(r"https?://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:\d{1,5})?", "http[s]://DOMAIN[:PORT], in lower case"),
    ),
    "network.pool": ("network_pool", _network),
    "network.resolvers": ("resolvers", _addresses),
    "events.retry_waits": ("event_retry_waits", _two_waits),
    "events.backoff": ("event_backoff", _two_waits),
    "events.concurrency": ("event_concurrency", _positive),
    "events.queue": ("event_queue", _positive),
    "services.endpoint_url": ("services_endpoint", _services),
    "services.access_key_id": ("services_key_id", _matching(r"[!-~]{1,128}", "an access key's id")),
    "services.secret_access_key": ("services_secret", _matching(r"[!-~]{1,128}", "an access key's secret")),
    "services.function_endpoint_url": ("services_for_functions", _url),
    "ca_file": ("ca_file", _path),
    "limits.profile": ("limits_profile", _matching("|".join(PROFILES), " or ".join(f'"{p}"' for p in PROFILES))),
}
_DESTINATIONS = "destinations."
_DESTINATION_ARN = re.compile(r"arn:aws[a-z0-9-]*:(sqs|sns|s3|events):[a-z0-9-]*:(\d{12})?:[!-~]{1,256}")
_RUNTIMES = "runtimes."
_RUNTIME = r"[a-z][a-z0-9.]{0,31}"
_runtime = _matching(_RUNTIME, 'the name of a runtime, such as "python3.13"')
_KEYS |= {f"limits.{f.name}": (f"limits.{f.name}", _positive) for f in fields(Limits)}


def load(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Config:
    """The configuration from a file (the default one may be missing) and from SANDBOXD_* over it.

    Raises ConfigError, which names file (or variable), key, value and what is allowed.
    """
    named = path or (Path(environ["SANDBOXD_CONFIG"]) if "SANDBOXD_CONFIG" in environ else None)
    source = named or DEFAULT_FILE
    settings: dict[str, tuple[str, Any]] = {}
    try:
        table = tomllib.loads(source.read_text())
    except FileNotFoundError:
        if named:
            raise ConfigError(str(named), "--config", str(named), "a readable file") from None
        table = {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(str(source), "file", str(error), "readable TOML") from error
    for key, value in _flatten(table):
        settings[key] = (str(source), value)
    for variable in sorted(environ):
        if variable.startswith(ENVIRONMENT_PREFIX) and variable not in _NO_SETTINGS:
            name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
            key = next((k for k in _KEYS if k.replace(".", "_") == name), name)
            settings[key] = (f"environment variable {variable}", environ[variable])
    return _build(settings, str(source) if table else "built-in defaults")


def _flatten(table: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in table.items():
        rows += _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return rows


def _build(settings: Mapping[str, tuple[str, Any]], source: str) -> Config:
    values: dict[str, Any] = {}
    limits: dict[str, int] = {}
    destinations: dict[str, Destination] = {}
    runtimes: dict[str, str] = {}
    for key, (origin, value) in settings.items():
        if key.startswith(_DESTINATIONS):
            destinations[key.removeprefix(_DESTINATIONS)] = _destination(origin, key, value)
            continue
        served = key.removeprefix(_RUNTIMES) if key.startswith(_RUNTIMES) else ""
        if key not in _KEYS and not re.fullmatch(_RUNTIME, served):
            raise ConfigError(origin, key, value, "one of the keys " + ", ".join(_KEYS))
        name, convert = _KEYS.get(key, ("runtimes", _runtime))
        try:
            converted = convert(value)
        except ValueError as error:
            shown = "(a secret)" if name == "services_secret" else value
            raise ConfigError(origin, key, shown, str(error)) from None
        if served:
            runtimes[served] = converted
        elif name.startswith("limits."):
            limits[name.removeprefix("limits.")] = converted
        else:
            values[name] = converted
    profile = PROFILES[values.get("limits_profile", "classic")]
    values |= {"destinations": destinations, "runtimes": runtimes, "limits": replace(profile, **limits)}
    config = Config(**values, source=source)
    if bool(config.services_key_id) != bool(config.services_secret) or (
        config.services_key_id and not config.services_endpoint
    ):
        key = "services.access_key_id" if config.services_key_id else "services.secret_access_key"
        together = "it together with services.endpoint_url, services.access_key_id and services.secret_access_key"
        raise ConfigError(settings[key][0], key, config.services_key_id or "(a secret)", together)
    if config.api_auth == "none" and not ip_address(config.api_listen[0]).is_loopback:
        origin = settings["api.auth"][0]
        raise ConfigError(
            origin, "api.auth", "none", f'"sigv4" while api.listen is {config.api_listen[0]} (not loopback)'
        )
    return config


def _destination(origin: str, key: str, value: Any) -> Destination:
    if not _DESTINATION_ARN.fullmatch(key.removeprefix(_DESTINATIONS)):
        raise ConfigError(origin, key, value, "the ARN of a queue, topic, bucket or event bus, in quotes, as the key")
    try:
        return destination.parse(value if isinstance(value, str) else "")
    except ValueError as error:
        raise ConfigError(origin, key, value, str(error)) from None
