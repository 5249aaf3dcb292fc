"""The Nestbox IM server."""

__version__ = "0.1.0"
