"""A node's configuration (XEP-0060, section 16.4): its defaults, its form, and options that a publisher insists on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from nestbox.core.errors import StanzaError
from nestbox.modules.dataforms import FORM, Field, form, submitted
from nestbox.modules.pubsub.names import refuse
from nestbox.wire import ns
from nestbox.wire.element import Element

__all__ = ["CONFIG_FORM", "NodeConfig", "config_form", "defaults", "metadata_form", "options_of", "with_options"]

CONFIG_FORM = f"{ns.PUBSUB}#node_config"
OPTIONS_FORM = f"{ns.PUBSUB}#publish-options"
METADATA_FORM = f"{ns.PUBSUB}#meta-data"
TEXT_BYTES = 1024  # of a title, a description or a type
GROUPS_MAX = 100
_TRUE, _FALSE = ("1", "true"), ("0", "false")


class NodeConfig(msgspec.Struct, omit_defaults=True):
    """The fields by their names without ``pubsub#``; ``max_items`` is a number or ``max``; there are only leaves."""

    access_model: str = "open"
    publish_model: str = "publishers"
    title: str = ""
    description: str = ""
    type: str = ""
    max_items: str = "1"
    persist_items: bool = True
    deliver_notifications: bool = True
    deliver_payloads: bool = True
    notify_config: bool = False
    notify_delete: bool = True
    notify_retract: bool = True
    send_last_published_item: str = "on_sub_and_presence"
    notification_type: str = "headline"
    itemreply: str = "owner"
    roster_groups_allowed: list[str] = []
    node_type: str = "leaf"

    def keep(self, limit: int) -> int:
        """How many items stay, where at most ``limit`` do."""
        return limit if self.max_items == "max" else min(int(self.max_items), limit)

    def encode(self) -> bytes:
        """As it is stored."""
        return msgspec.json.encode(self)

    @staticmethod
    def decode(data: bytes) -> NodeConfig:
        """What was stored."""
        return _decode(data)


_decode = msgspec.json.Decoder(NodeConfig).decode


class _Option(NamedTuple):
    kind: str
    label: str
    choices: Sequence[str] = ()


_OPTIONS = {
    "node_type": _Option("list-single", "Kind of node", ("leaf",)),
    "title": _Option("text-single", "Name of the node"),
    "description": _Option("text-single", "Description of the node"),
    "type": _Option("text-single", "Namespace of the payloads"),
    "access_model": _Option(
        "list-single", "Who may subscribe and retrieve items", ("open", "presence", "roster", "authorize", "whitelist")
    ),
    "roster_groups_allowed": _Option("list-multi", "Groups of the roster that may subscribe and retrieve items"),
    "publish_model": _Option("list-single", "Who may publish", ("publishers", "subscribers", "open")),
    "max_items": _Option("text-single", "How many items are kept, or max"),
    "persist_items": _Option("boolean", "Keep items"),
    "deliver_notifications": _Option("boolean", "Send notifications"),
    "deliver_payloads": _Option("boolean", "Send payloads with notifications"),
    "notify_config": _Option("boolean", "Notify when the configuration changes"),
    "notify_delete": _Option("boolean", "Notify when the node is deleted"),
    "notify_retract": _Option("boolean", "Notify when items are removed"),
    "send_last_published_item": _Option(
        "list-single", "When to send the last item", ("never", "on_sub", "on_sub_and_presence")
    ),
    "notification_type": _Option("list-single", "Type of the notifications' messages", ("headline", "normal")),
    "itemreply": _Option("list-single", "Who gets replies to items", ("owner", "publisher")),
}


def defaults(pep: bool, name: str = "") -> NodeConfig:
    """What a new node is: one that contacts may read with one item (XEP-0163, section 5), or an open one with many.

    Bookmarks, which hold passwords, begin private, also where a client forgets to say so (XEP-0402, section 4).
    """
    if pep and name in (ns.BOOKMARKS, ns.OLD_BOOKMARKS):
        return NodeConfig(access_model="whitelist", max_items="max", send_last_published_item="never")
    if pep:
        return NodeConfig(access_model="presence")
    return NodeConfig(max_items="max", send_last_published_item="on_sub", itemreply="publisher")


def config_form(config: NodeConfig) -> Element:
    """The form to configure a node, filled in with what is so (XEP-0060, section 8.2.1)."""
    fields = []
    for name, option in _OPTIONS.items():
        values = _values(getattr(config, name))
        choices = values if option.kind == "list-multi" else option.choices
        options = [(choice, choice) for choice in choices]
        fields.append(Field(option.kind, f"pubsub#{name}", option.label, values, options=options))
    return form(CONFIG_FORM, fields)


def metadata_form(config: NodeConfig, created: str, creator: str, owners: Sequence[str], subscribers: int) -> Element:
    """What everybody may know who may see a node (XEP-0060, sections 5.4 and 16.4.3)."""
    names = ("title", "description", "type", "access_model", "publish_model", "max_items")
    fields = [
        Field("list-single" if _OPTIONS[name].choices else "text-single", f"pubsub#{name}", values=[value])
        for name in names
        if (value := getattr(config, name))
    ]
    fields += [
        Field("text-single", "pubsub#creation_date", values=[created]),
        Field("jid-single", "pubsub#creator", values=[creator]),
        Field("jid-multi", "pubsub#owner", values=owners),
        Field("text-single", "pubsub#num_subscribers", values=[str(subscribers)]),
    ]
    return form(METADATA_FORM, fields, kind="result")


def options_of(parent: Element, form_type: str = OPTIONS_FORM) -> dict[str, list[str]]:
    """The fields of the form in an element such as ``<configure/>`` or ``<publish-options/>``; {} without a form."""
    x = parent.find(FORM)
    return {} if x is None else submitted(x, form_type, must_say=form_type == OPTIONS_FORM)


def with_options(config: NodeConfig, options: Mapping[str, Sequence[str]], *, strict: bool) -> NodeConfig:
    """The configuration with other values. What we do not know is left out, or, if ``strict``, refused.

    Raises StanzaError: not-acceptable for a value that the field cannot have.
    """
    changed: dict[str, object] = {}
    for field, values in options.items():
        name = field.removeprefix("pubsub#")
        option = _OPTIONS.get(name) if name != field else None
        if option is not None:
            changed[name] = _read(name, option, values)
        elif strict:
            raise refuse("conflict", "precondition-not-met", f"{field} is not known here.")
    return msgspec.structs.replace(config, **changed)


def _values(value: object) -> list[str]:
    if isinstance(value, bool):
        return ["1" if value else "0"]
    if isinstance(value, list):
        return value
    return [str(value)]


def _read(name: str, option: _Option, values: Sequence[str]) -> object:
    if option.kind == "list-multi":
        if len(values) > GROUPS_MAX:
            raise StanzaError("not-acceptable", f"pubsub#{name} has at most {GROUPS_MAX}.", limit="pubsub_groups")
        for value in values:
            _check_text(name, value)
        return sorted(set(values))
    value = values[0].strip() if len(values) == 1 else ""
    if option.kind == "boolean":
        if value not in _TRUE + _FALSE:
            raise StanzaError("not-acceptable", f"pubsub#{name} is 1 or 0.")
        return value in _TRUE
    if option.choices:
        return _choice(name, option, value)
    if name == "max_items":
        return _max_items(value)
    _check_text(name, value)
    return value


def _check_text(name: str, value: str) -> None:
    if len(value.encode()) > TEXT_BYTES:
        text = f"pubsub#{name} has at most {TEXT_BYTES} bytes."
        raise StanzaError("not-acceptable", text, limit="pubsub_text_bytes")


def _choice(name: str, option: _Option, value: str) -> str:
    if value in option.choices:
        return value
    if name == "access_model":
        raise refuse("not-acceptable", "unsupported-access-model", f"There is no access model {value}.")
    if value == "collection":  # XEP-0248, section 7.1.3.1
        raise refuse("feature-not-implemented", "unsupported", "There are no collections.", feature="collections")
    raise StanzaError("not-acceptable", f"pubsub#{name} is one of {', '.join(option.choices)}.")


def _max_items(value: str) -> str:
    if value == "max":
        return value
    if not (value.isascii() and value.isdecimal() and int(value[:9]) > 0):
        raise StanzaError("not-acceptable", "pubsub#max_items is a number of at least 1, or max.")
    return str(int(value[:9]))
