"""A client's view of its archive (XEP-0313): what a query gives, and how one is written."""

from __future__ import annotations

from dataclasses import dataclass

from harness import condition

from nestbox.wire import ns
from nestbox.wire.element import Element
from nestbox.wire.stanza import Stanza

MAM = "{urn:xmpp:mam:2}"
FORWARDED = f"{{{ns.FORWARD}}}forwarded"
BODY = "{jabber:client}body"


@dataclass
class Answer:
    """What a query gave: the ids and bodies of the results in the order sent, and ``<fin/>``."""

    results: list[Stanza]
    fin: Element

    @property
    def elements(self) -> list[Element]:
        return [result.find(MAM + "result") for result in self.results]

    @property
    def ids(self) -> list[str]:
        return [result.get("id") for result in self.elements]

    @property
    def bodies(self) -> list[str]:
        return [result.find(f"{FORWARDED}/{{jabber:client}}message/{BODY}").text for result in self.elements]

    @property
    def complete(self) -> bool:
        return self.fin.get("complete") == "true"

    def rsm(self, name: str) -> str | None:
        return self.fin.find(f"{{{ns.RSM}}}set").findtext(f"{{{ns.RSM}}}{name}")


def form(**fields: str | list[str]) -> str:
    values = {"FORM_TYPE": "urn:xmpp:mam:2", **{name.strip("_").replace("_", "-"): v for name, v in fields.items()}}
    inner = "".join(
        f"<field var='{name}'>{''.join(f'<value>{v}</value>' for v in ([value] if isinstance(value, str) else value))}"
        "</field>"
        for name, value in values.items()
    )
    return f"<x xmlns='jabber:x:data' type='submit'>{inner}</x>"


def rsm(**values: object) -> str:
    inner = "".join(f"<{name}>{'' if value is None else value}</{name}>" for name, value in values.items())
    return f"<set xmlns='http://jabber.org/protocol/rsm'>{inner}</set>"


async def query(client, *children: str, to: str | None = None) -> Answer | str:
    """Query an archive; an error's condition where it fails."""
    client.received.clear()
    answer = await client.iq("set", f"<query xmlns='urn:xmpp:mam:2' queryid='q1'>{''.join(children)}</query>", to)
    if answer.type == "error":
        return condition(answer)
    results = [stanza for stanza in client.received if stanza.has(MAM + "result")]
    client.received.clear()
    return Answer(results, answer.find(MAM + "fin"))


async def say(client, to: str, *bodies: str) -> None:
    for body in bodies:
        await client.send(f"<message to='{to}' type='chat'><body>{body}</body></message>")
    await client.world.settle()  # the workers commit each for itself
