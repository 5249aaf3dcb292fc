"""The tables, the same on SQLite and MariaDB.

Addresses and names are compared byte by byte (they are prepared before they come here): TEXT on SQLite, VARBINARY on
MariaDB, which lets even the longest JID be a key. Every table that holds an account's data says so by ``info`` on the
column with the account's id, so that deleting an account cannot forget a table.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, LargeBinary, MetaData, Table
from sqlalchemy import Text as SqlText
from sqlalchemy.dialects.mysql import MEDIUMBLOB, VARBINARY
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

__all__ = ["REVISION", "metadata"]

REVISION = "0010"  # the newest migration; a test holds it and the tables below to what the migrations make

LOCAL_BYTES = 1023  # RFC 7622, section 3.3
BARE_JID_BYTES = 2 * LOCAL_BYTES + 1
NODE_BYTES = 1000  # a pubsub node's name or an item's id; together with a home it fits into a key
FULL_JID_BYTES = 3060  # with the account id as long as an InnoDB key may be; RFC 7622 allows 3071


class Name(TypeDecorator[str]):
    """Text compared by its UTF-8 bytes, of at most ``length`` bytes."""

    impl = SqlText
    cache_ok = True

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[object]:
        return dialect.type_descriptor(SqlText() if dialect.name == "sqlite" else VARBINARY(self.length))

    def process_bind_param(self, value: str | None, dialect: Dialect) -> object:
        return value if value is None or dialect.name == "sqlite" else value.encode()

    def process_result_value(self, value: object, dialect: Dialect) -> str | None:
        return value.decode() if isinstance(value, bytes) else value  # type: ignore[return-value]


# SQLite gives rowids to INTEGER keys only.
Id = BigInteger().with_variant(Integer(), "sqlite")
Blob = LargeBinary().with_variant(MEDIUMBLOB(), "mysql")  # up to 16 MiB; a stanza has at most 256 KiB

metadata = MetaData(naming_convention={"fk": "%(table_name)s_%(column_0_name)s_fk"})
OPTIONS = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_row_format": "DYNAMIC"}


def account_id(*, primary_key: bool = False) -> Column[int]:
    """The column that says whose row it is."""
    return Column(
        "user_id", Id, ForeignKey("accounts.id"), primary_key=primary_key, nullable=False, info={"account": True}
    )


accounts = Table(
    "accounts",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True, info={"account": True}),
    Column("username", Name(LOCAL_BYTES), nullable=False, unique=True),
    Column("enabled", Boolean, nullable=False, default=True),
    Column("created", BigInteger, nullable=False),  # Unix time in seconds
    Column("last_seen", BigInteger),  # Unix time in seconds of the last logout (XEP-0012)
    Column("last_status", Name(1024)),
    Column("roster_ver", BigInteger, nullable=False, default=0),
    Column("roster_floor", BigInteger, nullable=False, default=0),  # removals up to here are forgotten
    Column("archive_days", Integer),  # how long its archive is kept; none: as the configuration says
    Column("photo", Name(40)),  # SHA-1 in hex of the picture in the vCard (XEP-0153)
    sqlite_autoincrement=True,  # a deleted account's id must never come back
    **OPTIONS,
)

credentials = Table(
    "credentials",
    metadata,
    account_id(primary_key=True),
    Column("hash", Name(16), primary_key=True),  # SHA-1, SHA-256, SHA-512
    Column("salt", LargeBinary(64).with_variant(VARBINARY(64), "mysql"), nullable=False),
    Column("iterations", Integer, nullable=False),
    Column("stored_key", LargeBinary(64).with_variant(VARBINARY(64), "mysql"), nullable=False),
    Column("server_key", LargeBinary(64).with_variant(VARBINARY(64), "mysql"), nullable=False),
    **OPTIONS,
)

# A client has at most two: the one it uses, and a fresh one that it has been given (XEP-0484, section 5.1).
tokens = Table(
    "tokens",
    metadata,
    account_id(primary_key=True),
    Column("agent", Name(64), primary_key=True),  # SHA-256 of the client's id, in hexadecimal
    Column("fresh", Boolean, primary_key=True),
    Column("mechanism", Name(32), nullable=False),
    Column("nonce", LargeBinary(16).with_variant(VARBINARY(16), "mysql"), nullable=False),
    Column("expires", BigInteger, nullable=False),  # Unix time in seconds; brought forward when it is made invalid
    Column("count", BigInteger, nullable=False),
    **OPTIONS,
)

devices = Table(
    "devices",
    metadata,
    account_id(primary_key=True),
    Column("agent", Name(64), primary_key=True),  # as that of a token
    Column("client", Name(16), nullable=False),  # what the resources of its sessions end with
    Column("name", Name(512), nullable=False),
    Column("seen", BigInteger, nullable=False),  # Unix time in seconds of the last login
    **OPTIONS,
)

roster = Table(
    "roster",
    metadata,
    account_id(primary_key=True),
    Column("jid", Name(BARE_JID_BYTES), primary_key=True),
    Column("name", Blob, nullable=False),  # UTF-8
    Column("subscription", Name(8), nullable=False),  # none, to, from, both; remove: was removed at `ver`
    Column("ask", Boolean, nullable=False),
    Column("approved", Boolean, nullable=False),
    Column("groups_json", Blob, nullable=False),
    Column("ver", BigInteger, nullable=False),
    Index("roster_ver", "user_id", "ver"),
    **OPTIONS,
)

roster_requests = Table(
    "roster_requests",
    metadata,
    account_id(primary_key=True),
    Column("jid", Name(BARE_JID_BYTES), primary_key=True),
    Column("presence", Blob, nullable=False),
    **OPTIONS,
)

# No foreign key on the two tables of the hot path: MariaDB forbids it on partitioned tables (error 1506), and a message
# that races with a deletion must not fail the batch it is in.
archive = Table(
    "archive",
    metadata,
    Column("owner", Id, primary_key=True, autoincrement=False, info={"account": True}),
    Column("id", Id, primary_key=True, autoincrement=False),
    Column("peer", Name(BARE_JID_BYTES), nullable=False),
    Column("stanza", Blob, nullable=False),
    # MariaDB keeps the rows in the order of the key. SQLite keeps them as they come and has only this index, which
    # also answers for the peer: clustered by owner, a commit would rewrite two pages a row, at four times the CPU.
    Index("archive_peer", "owner", "peer", "id").ddl_if(dialect="mysql"),
    Index("archive_time", "owner", "id", "peer", unique=True).ddl_if(dialect="sqlite"),
    **OPTIONS,
)

offline = Table(
    "offline",
    metadata,
    Column("user_id", Id, primary_key=True, autoincrement=False, info={"account": True}),
    Column("id", Id, primary_key=True, autoincrement=False),
    Column("stanza", Blob, nullable=False),
    sqlite_with_rowid=False,
    **OPTIONS,
)

# How far a client's stream has got, in the transaction of the rows that its stanzas caused (XEP-0198).
streams = Table(
    "streams",
    metadata,
    Column("sm_id", Name(64), primary_key=True),
    Column("user_id", Id, nullable=False, autoincrement=False, info={"account": True}),
    Column("received", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),  # Unix time in seconds
    Index("streams_at", "at"),
    **OPTIONS,
)

archive_prefs = Table(
    "archive_prefs",
    metadata,
    account_id(primary_key=True),
    Column("prefs_json", Blob, nullable=False),
    **OPTIONS,
)

vcards = Table(
    "vcards",
    metadata,
    account_id(primary_key=True),
    Column("xml", Blob, nullable=False),
    **OPTIONS,
)

private = Table(
    "private",
    metadata,
    account_id(primary_key=True),
    Column("name", Name(512), primary_key=True),
    Column("xml", Blob, nullable=False),
    **OPTIONS,
)

blocking = Table(
    "blocking",
    metadata,
    account_id(primary_key=True),
    Column("jid", Name(FULL_JID_BYTES), primary_key=True),
    **OPTIONS,
)

notices = Table(
    "notices",
    metadata,
    Column("name", Name(16), primary_key=True),  # motd, welcome
    Column("id", BigInteger, nullable=False),
    Column("text", Blob, nullable=False),  # UTF-8
    **OPTIONS,
)

notices_seen = Table(
    "notices_seen",
    metadata,
    account_id(primary_key=True),
    Column("name", Name(16), primary_key=True),
    Column("id", BigInteger, nullable=False),
    **OPTIONS,
)

# The archive of a room is in ``archive`` under the negative of its id.
rooms = Table(
    "rooms",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("name", Name(LOCAL_BYTES), nullable=False, unique=True),
    Column("listed", Boolean, nullable=False),  # whether disco shows it to everybody
    Column("secret", LargeBinary(32).with_variant(VARBINARY(32), "mysql"), nullable=False),  # of XEP-0421
    Column("config_json", Blob, nullable=False),
    Column("subject", Blob, nullable=False),
    Column("vcard", Blob),
    sqlite_autoincrement=True,  # a new room must never find an old one's archive
    **OPTIONS,
)

room_affiliations = Table(
    "room_affiliations",
    metadata,
    Column("room_id", Id, ForeignKey("rooms.id"), primary_key=True, autoincrement=False),
    Column("jid", Name(BARE_JID_BYTES), primary_key=True),
    Column("affiliation", Name(8), nullable=False),  # owner, admin, member, outcast
    Column("nick", Blob),  # reserved for this member, UTF-8
    Column("reason", Blob),
    # The account, where there was one: whoever gets its name later must not get its rights.
    Column("user_id", Id, ForeignKey("accounts.id"), info={"account": True}),
    Index("room_affiliations_user", "user_id", "affiliation"),
    **OPTIONS,
)

# A node lives at a home, the address of a pubsub service, and belongs to the account that made it (``user_id``), as
# does what is in it. ``subject_id`` is the account that a row is about, where it is one of ours.
pubsub_nodes = Table(
    "pubsub_nodes",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    account_id(),
    Column("home", Name(BARE_JID_BYTES), nullable=False),
    Column("name", Name(NODE_BYTES), nullable=False),
    Column("config_json", Blob, nullable=False),
    Column("created", BigInteger, nullable=False),  # Unix time in seconds
    Index("pubsub_nodes_name", "home", "name", unique=True),
    Index("pubsub_nodes_user", "user_id"),
    sqlite_autoincrement=True,
    **OPTIONS,
)


def _node_id() -> Column[int]:
    return Column("node_id", Id, ForeignKey("pubsub_nodes.id"), primary_key=True, nullable=False)


def _subject_id() -> Column[int]:
    return Column("subject_id", Id, ForeignKey("accounts.id"), info={"account": True})


pubsub_items = Table(
    "pubsub_items",
    metadata,
    _node_id(),
    Column("name", Name(NODE_BYTES), primary_key=True),
    account_id(),
    Column("seq", Id, nullable=False),  # grows with each publication in the node
    Column("size", Integer, nullable=False),  # bytes, for the account's limit
    Column("publisher", Name(BARE_JID_BYTES), nullable=False),
    Column("payload", Blob, nullable=False),
    Index("pubsub_items_seq", "node_id", "seq"),
    Index("pubsub_items_user", "user_id", "size"),
    **OPTIONS,
)

pubsub_affiliations = Table(
    "pubsub_affiliations",
    metadata,
    _node_id(),
    Column("jid", Name(BARE_JID_BYTES), primary_key=True),
    account_id(),
    _subject_id(),
    Column("affiliation", Name(16), nullable=False),  # owner, publisher, member, outcast
    Index("pubsub_affiliations_user", "user_id"),
    Index("pubsub_affiliations_subject", "subject_id"),
    **OPTIONS,
)

pubsub_subscriptions = Table(
    "pubsub_subscriptions",
    metadata,
    _node_id(),
    Column("jid", Name(FULL_JID_BYTES), primary_key=True),
    account_id(),
    _subject_id(),
    Column("bare", Name(BARE_JID_BYTES), nullable=False),
    Column("subid", Name(32), nullable=False),
    Column("state", Name(16), nullable=False),  # subscribed, pending
    Index("pubsub_subscriptions_user", "user_id"),
    Index("pubsub_subscriptions_subject", "subject_id"),
    **OPTIONS,
)

uploads = Table(
    "uploads",
    metadata,
    Column("token", Name(64), primary_key=True),
    account_id(),
    Column("name", Name(255), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("content_type", Name(255), nullable=False),  # empty: the client did not say
    Column("created", BigInteger, nullable=False),  # Unix time in seconds, of the slot
    Column("stored", BigInteger),  # Unix time in seconds since when the file is there
    Index("uploads_user", "user_id", "created"),
    **OPTIONS,
)

push = Table(
    "push",
    metadata,
    account_id(primary_key=True),
    Column("id", LargeBinary(32).with_variant(VARBINARY(32), "mysql"), primary_key=True),  # of jid and node
    Column("jid", Name(FULL_JID_BYTES), nullable=False),
    Column("node", Name(1024), nullable=False),
    Column("resource", Name(LOCAL_BYTES), nullable=False),
    Column("options", Blob, nullable=False),
    Column("failures", Integer, nullable=False),  # in a row
    **OPTIONS,
)

invites = Table(
    "invites",
    metadata,
    Column("token", Name(64), primary_key=True),
    # Who invites; NULL is the operator.
    Column("user_id", Id, ForeignKey("accounts.id"), info={"account": True}),
    Column("username", Name(LOCAL_BYTES), nullable=False),  # the name that is kept for whoever comes, or empty
    Column("registers", Boolean, nullable=False),
    Column("contact", Boolean, nullable=False),
    Column("uses_left", Integer, nullable=False),
    Column("created", BigInteger, nullable=False),  # Unix time in seconds, as is the next
    Column("expires", BigInteger, nullable=False),
    Index("invites_user", "user_id"),
    **OPTIONS,
)
