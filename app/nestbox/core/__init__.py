"""Addresses, errors, hooks, sessions, the registry and the router."""
