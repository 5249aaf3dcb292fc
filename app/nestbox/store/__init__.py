"""Accounts, rosters, archive and the rest on SQLite or MariaDB."""
