"""The configuration file: one YAML file, read strictly.

An unknown key or a wrong value is refused with the path of the key, so that a typing mistake never runs silently.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote

import msgspec
from msgspec import Meta, Struct

from nestbox.core.jid import prepare_domain, prepare_localpart
from nestbox.core.sources import Sources

__all__ = ["Config", "ConfigError", "load"]

OWN_HOSTS = ("pubsub", "rooms", "upload")  # of the domain, which are the server's
DEFAULT_PATH = Path("/etc/nestbox/nestbox.yml")

Positive = Annotated[int, Meta(ge=1)]
Natural = Annotated[int, Meta(ge=0)]


class ConfigError(Exception):
    """The configuration cannot be used; the message says where and why, in one sentence."""


class Listen(Struct, forbid_unknown_fields=True):
    """Where a worker listens: ``unix:/path`` or ``host:port``; ``{worker}`` stands for its number, '' is off."""

    http: str = "unix:/run/nestbox/{worker}/http.sock"
    c2s: str = "unix:/run/nestbox/{worker}/c2s.sock"
    c2s_tls: str = "unix:/run/nestbox/{worker}/c2s-tls.sock"
    metrics: str = "127.0.0.1:915{worker}"
    # For the hosts in ``components``; only from this machine, as it is not encrypted.
    component: str = "unix:/run/nestbox/{worker}/component.sock"
    # HAProxy puts a PROXY header before each stream; without HAProxy nobody may send one.
    proxy_protocol: bool = True


class Database(Struct, forbid_unknown_fields=True):
    """``sqlite:////path`` or ``mysql://user@localhost/name?unix_socket=/path``; the window is in seconds.

    ``replica_url`` is a copy of MariaDB from which the archive is read when it has caught up.
    """

    url: str = "sqlite:////var/lib/nestbox/nestbox.db"
    replica_url: str | None = None
    commit_window: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.01


class Bus(Struct, forbid_unknown_fields=True):
    """``local`` for one worker alone, else ``unix:///path`` or ``redis://host:port`` of Valkey or Redis.

    ``password_file`` has what they ask for (requirepass), of letters and digits.
    """

    url: str = "local"
    password_file: str | None = None

    def address(self) -> str:
        """The URL with the password in it. Raises ConfigError."""
        if self.password_file is None:
            return self.url
        try:
            password = Path(self.password_file).read_text().strip()
        except (OSError, ValueError) as error:
            raise ConfigError(f"bus.password_file cannot be read: {error}.") from error
        return self.url.replace("://", f"://:{quote(password, safe='')}@", 1)


class Tls(Struct, forbid_unknown_fields=True):
    """The certificate that clients see, here or at HAProxy: paths of PEM files; no certificate means no STARTTLS."""

    certificate: str | None = None
    key: str | None = None
    # Offers logins over plain TCP. For tests and benchmarks on loopback only.
    require: bool = True
    # Mozilla's guideline 6.0; ``modern`` is TLS 1.3 only. ``chacha_first``: for a CPU without AES instructions (Pi 4).
    policy: Literal["intermediate", "modern"] = "intermediate"
    chacha_first: bool = False


class Sasl(Struct, forbid_unknown_fields=True):
    """Mechanisms beside SCRAM; ``token_days`` is how long a client that stays away can come back by its token."""

    plain: bool = False
    token_days: Positive = 21


class Passwords(Struct, forbid_unknown_fields=True):
    """What people may choose, beside that it is none of those that leaked most often."""

    min_length: Annotated[int, Meta(ge=6, le=64)] = 8


class Web(Struct, forbid_unknown_fields=True):
    """The web chat and the addresses that clients are told. ``root`` holds the built web client; None serves none."""

    root: str | None = None
    https_url: str | None = None
    origins: list[str] = []


class Archive(Struct, forbid_unknown_fields=True):
    """XEP-0313. ``days`` is how long messages stay, 0 for ever."""

    enabled: bool = True
    days: Natural = 0


class Component(Struct, forbid_unknown_fields=True):
    """A bot or gateway with a host of its own (XEP-0114), and the secret by which it proves its name.

    The secret's characters are those that no program escapes before it hashes them.
    """

    host: str
    secret: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._~+/=-]{16,128}$")]


class ExternalService(Struct, forbid_unknown_fields=True):
    """A STUN or TURN server that clients are told of (XEP-0215).

    ``secret`` is what a TURN server shares with us; ``seconds`` is how long the credentials made from it are good.
    """

    type: Literal["stun", "stuns", "turn", "turns"]
    host: Annotated[str, Meta(min_length=1, max_length=255)]
    port: Annotated[int, Meta(ge=1, le=65535)] = 3478
    transport: Literal["udp", "tcp"] = "udp"
    secret: Annotated[str, Meta(min_length=1)] | None = None
    seconds: Positive = 86_400


class Registration(Struct, forbid_unknown_fields=True):
    """New accounts (XEP-0077, XEP-0401). ``open``: anybody may make one; else only who has an invitation.

    ``users_invite``: what any user's invitation is good for, an account too or only a contact; an invitation ends after
    ``invite_days``.
    """

    open: bool = False
    users_invite: bool = True
    invite_days: Annotated[int, Meta(ge=1, le=3650)] = 7


class Uploads(Struct, forbid_unknown_fields=True):
    """XEP-0363. Sizes in bytes, of one file, of an account's files, and of those of its last 24 hours.

    ``min_free_bytes`` of the disk are left alone; ``days`` is how long files stay, 0 for ever.
    """

    enabled: bool = True
    max_bytes: Positive = 100 * 1024 * 1024
    user_quota_bytes: Positive = 2 * 1024 * 1024 * 1024
    user_daily_bytes: Positive = 500 * 1024 * 1024
    min_free_bytes: Natural = 1024 * 1024 * 1024
    days: Natural = 180


Uri = Annotated[str, Meta(pattern=r"^(mailto|xmpp|https|tel):\S+$")]


class Contact(Struct, forbid_unknown_fields=True):
    """Whom people may turn to (XEP-0157), as URIs such as ``mailto:help@example.org``."""

    abuse: list[Uri] = []
    admin: list[Uri] = []
    feedback: list[Uri] = []
    sales: list[Uri] = []
    security: list[Uri] = []
    status: list[Uri] = []
    support: list[Uri] = []


class Push(Struct, forbid_unknown_fields=True):
    """What apps' servers learn by a notification (XEP-0357): a count, or with ``details`` also who wrote what."""

    details: bool = False


class Limits(Struct, forbid_unknown_fields=True):
    """What a client can make grow, in bytes, seconds or pieces.

    ``trusted_addresses`` (addresses and networks) are those for whom nothing counts that is limited by address, such as
    an office behind one: ``visitors_per_address`` are connections on which nobody has logged in yet, failed logins
    are those after which the next one has to wait, by address and by account. ``session_stanzas`` and
    ``session_bytes`` are what one session may send in a second in the long run, ten times that at once; then it is
    read more slowly.
    """

    stanza_bytes_before_login: Annotated[int, Meta(ge=10_000)] = 16 * 1024
    stanza_bytes: Annotated[int, Meta(ge=10_000)] = 256 * 1024
    login_seconds: Positive = 30
    idle_seconds: Positive = 900
    connections: Positive = 20_000
    sessions_per_user: Positive = 20
    roster_items: Positive = 2_000
    blocked_items: Positive = 2_000
    offline_messages: Positive = 2_000
    private_bytes: Positive = 256 * 1024
    pubsub_nodes: Positive = 500
    pubsub_items: Positive = 1_000
    pubsub_item_bytes: Positive = 192 * 1024
    pubsub_bytes: Positive = 16 * 1024 * 1024
    pubsub_subscriptions: Positive = 1_000
    caps_cached: Positive = 1_000
    resume_seconds: Natural = 600
    unacked_stanzas: Positive = 1_000
    unacked_bytes: Positive = 4 * 1024 * 1024
    write_buffer_bytes: Positive = 4 * 1024 * 1024
    directed_presences: Positive = 1_000
    token_clients: Positive = 50
    devices: Positive = 50
    command_sessions: Positive = 10
    command_seconds: Positive = 600
    rooms_per_user: Positive = 100
    room_occupants: Positive = 2_000
    room_affiliations: Positive = 5_000
    room_history: Positive = 50
    component_connections: Positive = 100
    uploaded_files: Positive = 10_000
    push_registrations: Positive = 20
    push_options_bytes: Positive = 4 * 1024
    trusted_addresses: tuple[str, ...] = ("127.0.0.0/8", "::1")
    visitors_per_address: Positive = 500
    failed_logins_per_address: Positive = 20
    failed_logins_per_account: Positive = 5
    session_stanzas: Positive = 500
    session_bytes: Positive = 512 * 1024
    open_invites: Positive = 50
    registrations_per_hour: Positive = 20


class Log(Struct, forbid_unknown_fields=True):
    """``addresses: short`` cuts client addresses to their network in the log."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    addresses: Literal["short", "full"] = "short"


class Config(Struct, forbid_unknown_fields=True):
    """Everything a worker and ``nestboxctl`` need to know."""

    domain: str
    name: str = "Nestbox"
    admins: list[str] = []
    workers: Annotated[int, Meta(ge=1, le=31)] = 1
    state_dir: str = "/var/lib/nestbox"
    listen: Listen = msgspec.field(default_factory=Listen)
    database: Database = msgspec.field(default_factory=Database)
    bus: Bus = msgspec.field(default_factory=Bus)
    tls: Tls = msgspec.field(default_factory=Tls)
    sasl: Sasl = msgspec.field(default_factory=Sasl)
    passwords: Passwords = msgspec.field(default_factory=Passwords)
    web: Web = msgspec.field(default_factory=Web)
    archive: Archive = msgspec.field(default_factory=Archive)
    components: list[Component] = []
    external_services: list[ExternalService] = []
    registration: Registration = msgspec.field(default_factory=Registration)
    uploads: Uploads = msgspec.field(default_factory=Uploads)
    contact: Contact = msgspec.field(default_factory=Contact)
    push: Push = msgspec.field(default_factory=Push)
    limits: Limits = msgspec.field(default_factory=Limits)
    log: Log = msgspec.field(default_factory=Log)

    def address(self, name: str, worker: int) -> str:
        """The address of a listener of a worker, by its name in `Listen`, '' when it is off."""
        return getattr(self.listen, name).replace("{worker}", str(worker))

    @property
    def https_url(self) -> str:
        """The address of the web chat as people type it, without a slash at the end."""
        return (self.web.https_url or f"https://{self.domain}").rstrip("/")


def load(path: str | Path = DEFAULT_PATH) -> Config:
    """Read and check a configuration file. Raises ConfigError."""
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        config = msgspec.yaml.decode(raw, type=Config)
    except msgspec.MsgspecError as error:  # wrong type, unknown key, missing key
        raise ConfigError(f"{path}: {error}.") from error
    except Exception as error:  # PyYAML's own family, which msgspec passes on
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}.") from error
    try:
        config.domain = prepare_domain(config.domain)
        config.admins = [prepare_localpart(admin) for admin in config.admins]
        for component in config.components:
            component.host = prepare_domain(component.host)
    except (ValueError, UnicodeError) as error:
        raise ConfigError(f"{path}: {error}.") from error
    try:
        Sources(config.limits.trusted_addresses)
    except ValueError as error:
        raise ConfigError(f"{path}: limits.trusted_addresses: {error}.") from error
    own = [config.domain, *(f"{name}.{config.domain}" for name in OWN_HOSTS)]
    hosts = own + [component.host for component in config.components]
    if len(set(hosts)) < len(hosts):
        raise ConfigError(f"{path}: each of the components needs a host of its own, and none of {', '.join(own)}.")
    for service in config.external_services:
        if service.type.startswith("turn") != bool(service.secret):
            raise ConfigError(f"{path}: external_services: a TURN server needs a secret, a STUN server has none.")
    if config.workers > 1 and config.bus.url == "local":
        raise ConfigError(f"{path}: {config.workers} workers need a bus; set bus.url to Valkey's socket.")
    if not config.database.url.startswith(("sqlite:", "mysql:")):
        raise ConfigError(f"{path}: database.url must begin with sqlite: or mysql:.")
    replica = config.database.replica_url
    if replica and not (replica.startswith("mysql:") and config.database.url.startswith("mysql:")):
        raise ConfigError(f"{path}: database.replica_url needs MariaDB on both sides.")
    if bool(config.tls.certificate) != bool(config.tls.key):
        raise ConfigError(f"{path}: tls.certificate and tls.key must be given together.")
    return config
