"""Building and writing XML elements.

Elements are those of the standard library (``xml.etree.ElementTree.Element``), with tags in the ``{namespace}local``
form. We write them ourselves: no prefixes but ``xml:``, the default namespace declared where it changes. That is the
form every XMPP library reads, and several times cheaper than ``ElementTree.tostring``.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element

from nestbox.wire import ns

__all__ = ["Element", "el", "escape", "escape_attribute", "local_name", "namespace", "to_bytes"]

_XML_PREFIX = "{" + ns.XML + "}"


def el(tag: str, attributes: dict[str, str] | None = None, *children: Element, text: str | None = None) -> Element:
    """Make an element; ``tag`` and attribute names are in ``{namespace}local`` form."""
    element = Element(tag, attributes or {})
    element.text = text
    element.extend(children)
    return element


def namespace(tag: str) -> str:
    """The namespace of a ``{namespace}local`` tag, '' when it has none."""
    return tag[1:].partition("}")[0] if tag[0] == "{" else ""


def local_name(tag: str) -> str:
    """The local part of a ``{namespace}local`` tag."""
    return tag.rpartition("}")[2]


def escape(text: str) -> str:
    """Escape character data (XML 1.0, section 2.4); a carriage return survives as a reference."""
    if "&" in text:
        text = text.replace("&", "&amp;")
    if "<" in text:
        text = text.replace("<", "&lt;")
    if ">" in text:
        text = text.replace(">", "&gt;")
    if "\r" in text:
        text = text.replace("\r", "&#13;")
    return text


def escape_attribute(text: str) -> str:
    """Escape an attribute value for double quotes; white space that a parser would normalise becomes references."""
    text = escape(text)
    if '"' in text:
        text = text.replace('"', "&quot;")
    if "\n" in text:
        text = text.replace("\n", "&#10;")
    if "\t" in text:
        text = text.replace("\t", "&#9;")
    return text


def write_attributes(out: list[str], attributes: dict[str, str]) -> None:
    """Append `` name="value"`` for each attribute to ``out``; foreign namespaces get a prefix of their own."""
    for index, (name, value) in enumerate(attributes.items()):
        if name[0] == "{":
            if name.startswith(_XML_PREFIX):
                name = "xml:" + name[len(_XML_PREFIX) :]
            else:
                uri, _, local = name[1:].partition("}")
                out.append(f' xmlns:a{index}="{escape_attribute(uri)}"')
                name = f"a{index}:{local}"
        out.append(f' {name}="{escape_attribute(value)}"')


def _write(out: list[str], element: Element, parent_ns: str) -> None:
    tag = element.tag
    if tag[0] == "{":
        uri, _, name = tag[1:].partition("}")
    else:
        uri, name = "", tag
    out.append("<" + name)
    if uri != parent_ns:
        out.append(f' xmlns="{escape_attribute(uri)}"')
    if element.attrib:
        write_attributes(out, element.attrib)
    text = element.text
    if not text and not len(element):
        out.append("/>")
        return
    out.append(">")
    if text:
        out.append(escape(text))
    for child in element:
        _write(out, child, uri)
        if child.tail:
            out.append(escape(child.tail))
    out.append(f"</{name}>")


def to_bytes(element: Element, parent_ns: str = ns.CLIENT) -> bytes:
    """Serialise ``element`` as UTF-8 for a place whose default namespace is ``parent_ns``."""
    out: list[str] = []
    _write(out, element, parent_ns)
    return "".join(out).encode()
