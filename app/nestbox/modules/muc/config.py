"""A room's configuration, and the form by which an owner changes it (XEP-0045, sections 10.1.3 and 10.2)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from nestbox.core.errors import StanzaError
from nestbox.core.jid import JID, parse_jid
from nestbox.modules import dataforms
from nestbox.modules.dataforms import Field
from nestbox.wire import ns
from nestbox.wire.element import Element

if TYPE_CHECKING:
    from nestbox.config import Limits

__all__ = ["ROOM_CONFIG", "Hat", "RoomConfig", "Wearer", "config_form", "flag", "read_config", "read_jids"]

ROOM_CONFIG = f"{ns.MUC}#roomconfig"
TEXT_BYTES = 1024  # of a name, a description, a password
_P = "muc#roomconfig_"
_MAX_USERS = (10, 20, 30, 50, 100, 200, 500, 1000, 2000)
_BROADCAST = ["moderator", "participant", "visitor"]
_PM = (("Anyone", "anyone"), ("Anyone with voice", "participants"), ("Moderators", "moderators"), ("Nobody", "none"))
_WHOIS = (("Moderators only", "moderators"), ("Anyone", "anyone"))


class Hat(msgspec.Struct, array_like=True):
    """A title of a room (XEP-0317); ``hue`` are degrees as somebody wrote them, '' for none."""

    title: str
    hue: str = ""


class Wearer(msgspec.Struct, array_like=True):
    """Whose hats these are, by URI; ``user_id`` is None for an address that is no account of ours."""

    user_id: int | None
    hats: list[str]


class RoomConfig(msgspec.Struct, omit_defaults=True):
    """What owners and admins can set; the names are those of the form's fields or say the same.

    ``max_users`` 0 means no limit of its own. ``locked``: made, but its owner has not set it up yet (section 10.1).
    ``avatar`` are the SHA-1 hashes of the room's pictures (XEP-0486), ``hats`` are by URI, ``wearers`` by bare JID.
    """

    name: str = ""
    description: str = ""
    lang: str = ""
    persistent: bool = False
    public: bool = True
    members_only: bool = False
    moderated: bool = False
    password: str = ""
    whois: str = "moderators"
    max_users: int = 0
    change_subject: bool = False
    allow_invites: bool = False
    allow_pm: str = "anyone"
    logging: bool = True
    broadcast: list[str] = msgspec.field(default_factory=lambda: list(_BROADCAST))
    member_list: list[str] = msgspec.field(default_factory=lambda: list(_BROADCAST))
    history: int = 20
    locked: bool = False
    avatar: list[str] = []
    hats: dict[str, Hat] = {}
    wearers: dict[str, Wearer] = {}

    @property
    def anonymous(self) -> bool:
        """Whether only moderators see real addresses (a semi-anonymous room)."""
        return self.whois != "anyone"

    @property
    def listed(self) -> bool:
        """Whether disco shows the room to everybody."""
        return self.public and not self.locked


def flag(value: bool) -> list[str]:
    """The value of a boolean field."""
    return ["1" if value else "0"]


def config_form(config: RoomConfig, owners: Iterable[str], admins: Iterable[str], limits: Limits) -> Element:
    """The form for an owner, filled in with what is set now."""
    roles = [(role.capitalize(), role) for role in _BROADCAST]
    counts = [(str(count), str(count)) for count in _MAX_USERS if count <= limits.room_occupants]
    if config.max_users and str(config.max_users) not in dict(counts):
        counts.append((str(config.max_users), str(config.max_users)))
    return dataforms.form(
        ROOM_CONFIG,
        (
            Field("text-single", f"{_P}roomname", "Name of the room", [config.name]),
            Field("text-single", f"{_P}roomdesc", "Description of the room", [config.description]),
            Field("text-single", f"{_P}lang", "Language of the discussions", [config.lang]),
            Field("boolean", f"{_P}persistentroom", "The room stays when it is empty", flag(config.persistent)),
            Field("boolean", f"{_P}publicroom", "The room is listed for everybody", flag(config.public)),
            Field("boolean", f"{_P}membersonly", "Only members may enter", flag(config.members_only)),
            Field("boolean", f"{_P}moderatedroom", "Only those with voice may send", flag(config.moderated)),
            Field("boolean", f"{_P}passwordprotectedroom", "A password is needed", flag(bool(config.password))),
            Field("text-private", f"{_P}roomsecret", "Password", [config.password]),
            Field("list-single", f"{_P}whois", "Who sees real addresses", [config.whois], options=_WHOIS),
            Field(
                "list-single",
                f"{_P}maxusers",
                "Most occupants",
                [str(config.max_users) if config.max_users else "none"],
                options=[*counts, ("No limit of its own", "none")],
            ),
            Field("boolean", f"{_P}changesubject", "Participants change the subject", flag(config.change_subject)),
            Field("boolean", f"{_P}allowinvites", "Members and occupants invite", flag(config.allow_invites)),
            Field("list-single", f"{_P}allowpm", "Who sends private messages", [config.allow_pm], options=_PM),
            Field("boolean", f"{_P}enablelogging", "Messages are archived", flag(config.logging)),
            Field(
                "list-multi",
                f"{_P}presencebroadcast",
                "Roles whose presence is told",
                config.broadcast,
                options=roles,
            ),
            Field("list-multi", f"{_P}getmemberlist", "Roles that see the lists", config.member_list, options=roles),
            Field("text-single", "muc#maxhistoryfetch", "Messages shown on entering", [str(config.history)]),
            Field("jid-multi", f"{_P}roomadmins", "Admins", sorted(admins)),
            Field("jid-multi", f"{_P}roomowners", "Owners", sorted(owners)),
        ),
        title="Configuration of the room",
    )


def read_config(config: RoomConfig, values: dict[str, list[str]], limits: Limits) -> RoomConfig:
    """The configuration that a submitted form asks for; what it does not name stays. Raises StanzaError."""
    new = msgspec.structs.replace(config)
    texts = {"roomname": "name", "roomdesc": "description", "lang": "lang", "roomsecret": "password"}
    flags = {
        "persistentroom": "persistent",
        "publicroom": "public",
        "membersonly": "members_only",
        "moderatedroom": "moderated",
        "changesubject": "change_subject",
        "allowinvites": "allow_invites",
        "enablelogging": "logging",
    }
    choices = {"whois": ("whois", _WHOIS), "allowpm": ("allow_pm", _PM)}
    roles = {"presencebroadcast": "broadcast", "getmemberlist": "member_list"}
    for field, given in values.items():
        name = field.removeprefix(_P)
        if name in texts:
            setattr(new, texts[name], _text(given))
        elif name in flags:
            setattr(new, flags[name], _boolean(given))
        elif name in choices:
            attribute, options = choices[name]
            setattr(new, attribute, _choice(given, [value for _, value in options]))
        elif name in roles:
            setattr(new, roles[name], [_choice([value], _BROADCAST) for value in given])
        elif name == "maxusers":
            new.max_users = 0 if given == ["none"] else _number(given, limits.room_occupants)
        elif field == "muc#maxhistoryfetch":
            new.history = _number(given, limits.room_history)
    archived = values.get(f"{_P}enablearchiving")  # beside which enablelogging means a public log, which we have not
    if archived is not None:
        new.logging = _boolean(archived)
    protected = values.get(f"{_P}passwordprotectedroom")
    if protected is not None and not _boolean(protected):
        new.password = ""
    elif protected is not None and not new.password:
        raise StanzaError("not-acceptable", "A room with a password needs one.")
    return new


def read_jids(given: list[str]) -> list[JID]:
    """The addresses in a jid-multi field, bare. Raises StanzaError jid-malformed."""
    try:
        return [parse_jid(text.strip()).bare_jid for text in given if text.strip()]
    except ValueError as error:
        raise StanzaError("jid-malformed", str(error)) from None


def _text(given: list[str]) -> str:
    text = "\n".join(given)
    if len(text.encode()) > TEXT_BYTES:
        error = f"A text of the configuration has at most {TEXT_BYTES} bytes."
        raise StanzaError("not-acceptable", error, limit="room_text_bytes")
    return text


def _boolean(given: list[str]) -> bool:
    return _choice(given, ["0", "1", "false", "true"]) in ("1", "true")


def _choice(given: list[str], options: list[str]) -> str:
    if len(given) != 1 or given[0] not in options:
        raise StanzaError("not-acceptable", f"{' '.join(given)[:64]!r} is none of {', '.join(options)}.")
    return given[0]


def _number(given: list[str], most: int) -> int:
    text = given[0].strip() if len(given) == 1 else ""
    if not (text.isascii() and text.isdigit()):
        raise StanzaError("not-acceptable", f"{text[:64]!r} is no number.")
    return min(int(text[:9]), most)
