"""XML for the reader's tests: streams that are right, as lists of their top-level parts, and input that is wrong."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from nestbox.core.errors import StreamError
from nestbox.wire.reader import Event, ReaderLimits, StreamEnd, StreamOpen, StreamReader
from nestbox.wire.stanza import Stanza

HEADER = (
    b"<?xml version='1.0' encoding='UTF-8'?>\n<stream:stream to='nestbox.test' xmlns='jabber:client' "
    b"xmlns:stream='http://etherx.jabber.org/streams' version='1.0' xml:lang='de'>"
)
STREAMS = [
    [
        HEADER,
        b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AHJvbWVvAHNlY3JldA==</auth>",
        b" \r\n\t<message to='a&amp;b@c' id=\"x'>y\"><body>1 &lt; 2 &amp;&amp; 3 &gt; 2 &#8364; "
        b"\xe2\x82\xac</body></message>",
        b"<presence/>",
        b"<iq type='get' id='&#x41;>'>"
        b"<query xmlns='urn:a'><b:item xmlns:b='urn:b' b:n='>\"'/><c xmlns=''/></query></iq >",
        b"<message><body><![CDATA[<not>a</tag> ]] > ]]]]><![CDATA[>]]></body>"
        b"<x xmlns='u'>\xf0\x9f\x90\xa6</x></message>",
        b"<presence></presence>",
        b"<message\n\tto = 'x'\r\n></message\n>",
        b"<message>/></message>",
        b"<message a='/'></message>",
        b"<r xmlns='urn:xmpp:sm:3'/>",
        b"<message xml:lang='fr' xmlns:q='urn:q' q:a='1'><q:b/>text<i/>tail</message>",
        b"<m:message xmlns:m='jabber:client'><m:body>hi</m:body></m:message>",
        b"<message xmlns='jabber:client'><stream:oddity/></message>",
        b"<note xmlns='urn:other'><message xmlns='jabber:client'/></note>",
        b"</stream:stream>",
    ],
    [
        b"<s:stream xmlns:s='http://etherx.jabber.org/streams' xmlns:c=\"jabber:client\" xmlns:d='u&quot;v&lt;'>",
        b"<c:message><c:body>c:</c:body></c:message>",
        b"<message xmlns='jabber:client'><d:x/></message>",
        b"<message xmlns='jabber:client'><x xmlns='u'/></message>",
        b"</s:stream>",
    ],
    [b"<stream xmlns='http://etherx.jabber.org/streams'/>"],
]
WRONG = {
    "doctype": (b"<!DOCTYPE stream>" + HEADER[39:], "restricted-xml"),
    "doctype after the declaration": (HEADER[:39] + b"<!DOCTYPE stream [<!ENTITY a 'b'>]>", "restricted-xml"),
    "doctype in the stream": (HEADER + b"<!DOCTYPE message>", "restricted-xml"),
    "doctype in a stanza": (HEADER + b"<message><!DOCTYPE message>", "restricted-xml"),
    "billion laughs": (
        b"<!DOCTYPE l [<!ENTITY a 'lol'><!ENTITY b '&a;&a;&a;&a;&a;'>]><l>&b;</l>",
        "restricted-xml",
    ),
    "external entity": (b"<!DOCTYPE l [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><l>&a;</l>", "restricted-xml"),
    "undefined entity": (HEADER + b"<message><body>&nbsp;</body></message>", "restricted-xml"),
    "undefined entity in an attribute": (HEADER + b"<message to='&me;'/>", "restricted-xml"),
    "processing instruction": (HEADER + b"<?do it?>", "restricted-xml"),
    "processing instruction first": (b"<?do it?>" + HEADER[39:], "restricted-xml"),
    "processing instruction inside": (HEADER + b"<message><?do it?></message>", "restricted-xml"),
    "declaration in the stream": (HEADER + b"<?xml version='1.0'?>", "restricted-xml"),
    "comment": (HEADER + b"<!-- so -->", "restricted-xml"),
    "comment first": (b"<!-- so -->" + HEADER[39:], "restricted-xml"),
    "comment inside": (HEADER + b"<message><body>a<!-- b -->c</body></message>", "restricted-xml"),
    "UTF-16 with a mark": (b"\xff\xfe" + HEADER[39:].decode().encode("utf-16-le"), "unsupported-encoding"),
    "UTF-16 big": (b"\xfe\xff" + HEADER[39:].decode().encode("utf-16-be"), "unsupported-encoding"),
    "UTF-16 without a mark": (HEADER[39:].decode().encode("utf-16-le"), "unsupported-encoding"),
    "UTF-32": (HEADER[39:].decode().encode("utf-32-be"), "unsupported-encoding"),
    "Latin-1 declared": (HEADER.replace(b"UTF-8", b"ISO-8859-1"), "unsupported-encoding"),
    "UTF-16 declared": (HEADER.replace(b"UTF-8", b"UTF-16"), "unsupported-encoding"),
    "Latin-1 bytes": (HEADER + b"<message><body>gr\xfc\xdfe</body></message>", "unsupported-encoding"),
    "Latin-1 bytes in an attribute": (HEADER + b"<message to='gr\xfc\xdfe'/>", "unsupported-encoding"),
    "overlong UTF-8": (HEADER + b"<message><body>\xc0\xaf</body></message>", "unsupported-encoding"),
    "surrogate": (HEADER + b"<message><body>\xed\xa0\x80</body></message>", "unsupported-encoding"),
    "byte order mark": (b"\xef\xbb\xbf" + HEADER, "not-well-formed"),
    "XML 1.1": (HEADER.replace(b"1.0", b"1.1", 1), "not-well-formed"),
    "NUL": (HEADER + b"<message><body>\0</body></message>", "not-well-formed"),
    "NUL by reference": (HEADER + b"<message><body>&#0;</body></message>", "not-well-formed"),
    "control character": (HEADER + b"<message><body>\x08</body></message>", "not-well-formed"),
    "unbound prefix": (HEADER + b"<message><x:y/></message>", "not-well-formed"),
    "unbound prefix of an attribute": (HEADER + b"<message x:y='z'/>", "not-well-formed"),
    "redeclared xml": (HEADER + b"<message xmlns:xml='urn:x'/>", "not-well-formed"),
    "separator in a namespace": (HEADER + b"<message><a xmlns='jabber:client}message'/></message>", "not-well-formed"),
    "attribute twice": (HEADER + b"<message a='1' a='2'/>", "not-well-formed"),
    "attribute twice by namespace": (
        HEADER + b"<message xmlns:a='u' xmlns:b='u' a:x='1' b:x='2'/>",
        "not-well-formed",
    ),
    "attribute without quotes": (HEADER + b"<message to=romeo/>", "not-well-formed"),
    "tag in an attribute": (HEADER + b"<message to='<a/>'/>", "not-well-formed"),
    "wrong end": (HEADER + b"<message><body></message>", "not-well-formed"),
    "end of nothing": (HEADER + b"</message>", "not-well-formed"),
    "lone ampersand": (HEADER + b"<message><body>a & b</body></message>", "not-well-formed"),
    "end of a section": (HEADER + b"<message><body>]]></body></message>", "not-well-formed"),
    "section outside": (HEADER + b"<![CDATA[x]]>", "bad-format"),
    "text before the stream": (HEADER[:39] + b'"x', "not-well-formed"),
    "character before the stream": (HEADER[:39] + "\u20ac".encode(), "not-well-formed"),
    "character outside": (HEADER + "\u20ac".encode(), "bad-format"),
    "text outside": (HEADER + b"<presence/> x ", "bad-format"),
    "no XML": (b"GET / HTTP/1.1\r\n", "not-well-formed"),
    "deep": (HEADER + b"<a>" * 65, "policy-violation"),
    "attributes": (
        HEADER + b"<a " + b" ".join(b"b%d='c'" % n for n in range(65)) + b"/>",
        "policy-violation",
    ),
    "attributes in the header": (
        HEADER[:-1] + b" " + b" ".join(b"b%d='c'" % n for n in range(65)) + b">",
        "policy-violation",
    ),
}


def canonical(element: Element) -> tuple:
    """An element as something that can be compared; text and tail that are missing and empty are the same."""
    return (
        element.tag,
        sorted(element.attrib.items()),
        element.text or "",
        [(canonical(child), child.tail or "") for child in element],
    )


def describe(event: Event) -> tuple:
    """An event as something that can be compared."""
    if isinstance(event, StreamOpen):
        return ("open", event.tag, sorted(event.attributes.items()), event.default_ns)
    if isinstance(event, StreamEnd):
        return ("end",)
    if isinstance(event, Stanza):
        return ("stanza", canonical(event.element), event.inner)
    return ("element", canonical(event))


def new_reader(stepwise: bool = False, **limits: int) -> StreamReader:
    reader = StreamReader(ReaderLimits(**limits))
    reader.stepwise = stepwise
    return reader


def drain(reader: StreamReader) -> list[tuple]:
    """The events that are there, the last one being ("error", condition) if the reader gave up."""
    events = []
    try:
        while (event := reader.next()) is not None:
            events.append(describe(event))
    except StreamError as error:
        events.append(("error", error.condition))
    return events


def read(data: bytes, step: int = 0, stepwise: bool = False, **limits: int) -> list[tuple]:
    """The events of ``data``, fed at once or ``step`` bytes at a time."""
    reader = new_reader(stepwise, **limits)
    events = []
    for start in range(0, len(data), step or len(data)):
        try:
            reader.feed(data[start : start + (step or len(data))])
        except StreamError as error:
            return [*events, ("error", error.condition)]
        events += drain(reader)
    return events
