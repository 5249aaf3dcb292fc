"""How workers reach each other: in one process, or over Valkey or Redis."""
