"""Bytes to stanzas and back: no sockets, no policy."""
