"""What the tests of pubsub share: requests in short, and clients that say what they want to hear of."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from harness import DOMAIN, Client, World

from nestbox.modules.caps import verification
from nestbox.wire import ns
from nestbox.wire.element import Element, el, to_bytes
from nestbox.wire.stanza import Stanza

NS = f"{{{ns.PUBSUB}}}"
OWNER = f"{{{ns.PUBSUB_OWNER}}}"
EVENT = f"{{{ns.PUBSUB_EVENT}}}"
ERRORS = f"{{{ns.PUBSUB_ERRORS}}}"
INFO = f"{{{ns.DISCO_INFO}}}"
SERVICE = f"pubsub.{DOMAIN}"
HOST_FORM = f"{ns.PUBSUB}#node_config"
OPTIONS = f"{ns.PUBSUB}#publish-options"


def form(options: Mapping[str, object], form_type: str = HOST_FORM) -> str:
    """A submitted form; a list gives a field with several values."""
    fields = [f"<field var='FORM_TYPE' type='hidden'><value>{form_type}</value></field>"]
    for name, value in options.items():
        values = value if isinstance(value, list) else [value]
        inner = "".join(f"<value>{each}</value>" for each in values)
        fields.append(f"<field var='pubsub#{name}'>{inner}</field>")
    return f"<x xmlns='jabber:x:data' type='submit'>{''.join(fields)}</x>"


async def ask(client: Client, kind: str, inner: str, to: str | None = None, owner: bool = False) -> Stanza:
    space = ns.PUBSUB_OWNER if owner else ns.PUBSUB
    return await client.iq(kind, f"<pubsub xmlns='{space}'>{inner}</pubsub>", to)


async def publish(
    client: Client,
    node: str,
    item: str | None = "current",
    payload: str = "<x xmlns='x:1'/>",
    to: str | None = None,
    **options: object,
) -> Stanza:
    attribute = f" id='{item}'" if item is not None else ""
    inner = f"<publish node='{node}'><item{attribute}>{payload}</item></publish>"
    if options:
        inner += f"<publish-options>{form(options, OPTIONS)}</publish-options>"
    return await ask(client, "set", inner, to)


async def items(
    client: Client, node: str, to: str | None = None, inner: str = "", more: str = "", **attributes: object
) -> Stanza:
    extra = "".join(f" {name}='{value}'" for name, value in attributes.items())
    return await ask(client, "get", f"<items node='{node}'{extra}>{inner}</items>{more}", to)


def ids(answer: Stanza) -> list[str]:
    """The ids of the items in an answer."""
    assert answer.type == "result", to_bytes(answer.element)
    return [item.get("id") for item in answer.element.iter(NS + "item")]


async def create(client: Client, node: str, to: str | None = None, **options: object) -> Stanza:
    configure = f"<configure>{form(options)}</configure>" if options else ""
    return await ask(client, "set", f"<create node='{node}'/>{configure}", to)


async def configure(client: Client, node: str, to: str | None = None, **options: object) -> Stanza:
    return await ask(client, "set", f"<configure node='{node}'>{form(options)}</configure>", to, owner=True)


async def affiliate(client: Client, node: str, to: str | None = None, **people: str) -> Stanza:
    inner = "".join(f"<affiliation jid='{name}@{DOMAIN}' affiliation='{what}'/>" for name, what in people.items())
    return await ask(client, "set", f"<affiliations node='{node}'>{inner}</affiliations>", to, owner=True)


async def subscribe(client: Client, node: str, to: str | None = None, jid: str | None = None) -> Stanza:
    return await ask(client, "set", f"<subscribe node='{node}' jid='{jid or client.bare}'/>", to)


def specific(answer: Stanza) -> str | None:
    """The condition of pubsub#errors in an error."""
    error = answer.find("{jabber:client}error")
    found = [child for child in error if child.tag.startswith(ERRORS)] if error is not None else []
    return found[0].tag.removeprefix(ERRORS) if found else None


# what clients ask to hear of


def disco(nodes: Iterable[str]) -> Element:
    """The disco answer of a client that asks to hear of nodes."""
    features = [ns.DISCO_INFO, *(f"{node}+notify" for node in nodes)]
    identity = el(INFO + "identity", {"category": "client", "type": "pc", "name": "Test"})
    return el(INFO + "query", None, identity, *(el(INFO + "feature", {"var": each}) for each in features))


def presence(ver: str, inner: str = "", algorithm: str = "sha-1") -> str:
    return f"<presence><c xmlns='{ns.CAPS}' hash='{algorithm}' node='x:client' ver='{ver}'/>{inner}</presence>"


async def answer_disco(client: Client, info: Element) -> Stanza:
    """Answer the server's question with what the client can do."""
    question = await client.expect("iq", type="get", from_=DOMAIN)
    info.set("node", question.payload.get("node"))
    data = to_bytes(info).decode()
    await client.send(f"<iq type='result' id='{question.id}' to='{DOMAIN}'>{data}</iq>")
    return question


async def listener(world: World, name: str, *nodes: str, resource: str | None = None, worker: int = 1) -> Client:
    """A client that is online and asks to hear of nodes; what it got on the way is still in ``received``."""
    client = await world.client(name, resource, worker=worker, presence=None)
    await listen(client, *nodes)
    return client


async def listen(client: Client, *nodes: str) -> None:
    """Send presence that asks to hear of nodes."""
    info = disco(nodes)
    ver = verification(info)
    asked = len(client.server.questions._open)
    await client.send(presence(ver))
    await asyncio.sleep(0)  # the server asks, unless it knows
    if len(client.server.questions._open) > asked:
        await answer_disco(client, info)
    await client.world.settle()


async def event(client: Client, node: str, what: str = "items", sender: str | None = None) -> Element:
    """The next notification of a node: its element of this name."""

    def matches(stanza: Stanza) -> bool:
        element = stanza.find(EVENT + "event")
        return (
            stanza.kind == "message"
            and element is not None
            and element[0].tag == EVENT + what
            and element[0].get("node") == node
            and sender in (None, stanza.from_)
        )

    stanza = await client.expect(matches)
    assert stanza.to in (client.jid, client.bare)
    return stanza.find(EVENT + "event")[0]


async def no_event(client: Client) -> None:
    """Once all is quiet, no notification is there."""
    await client.nothing("message", tag=EVENT + "event")
