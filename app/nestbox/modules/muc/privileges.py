"""Who may change whose affiliation and role, and which role comes with an affiliation (XEP-0045, section 5).

Pure functions of names; each check raises StanzaError: forbidden for what the asker may never do, not-allowed for a ban
or a role where the other one stands too high, conflict for a room without an owner.
"""

from __future__ import annotations

from nestbox.core.errors import StanzaError

__all__ = ["AFFILIATIONS", "ROLES", "check_affiliation", "check_role", "rank", "role_after", "role_for"]

AFFILIATIONS = ("outcast", "none", "member", "admin", "owner")
ROLES = ("none", "visitor", "participant", "moderator")
_RANK = {name: index for index, name in enumerate(AFFILIATIONS)}
_ROLE_RANK = {name: index for index, name in enumerate(ROLES)}
_ADMIN = _RANK["admin"]


def rank(affiliation: str) -> int:
    """The place of an affiliation in the hierarchy, the owner's being the highest."""
    return _RANK[affiliation]


def role_for(affiliation: str, moderated: bool) -> str:
    """The role with which somebody enters (section 7.2.3, "Default Roles")."""
    if _RANK[affiliation] >= _ADMIN:
        return "moderator"
    return "participant" if affiliation == "member" or not moderated else "visitor"


def role_after(role: str, before: str, after: str, moderated: bool) -> str:
    """The role of an occupant whose affiliation has changed: gained with a rank, lost with the rank it came from."""
    default = role_for(after, moderated)
    if _RANK[after] > _RANK[before]:
        return max(role, default, key=_ROLE_RANK.__getitem__)
    if _RANK[before] >= _ADMIN > _RANK[after]:
        return default
    return role


def check_affiliation(actor: str, before: str, after: str, *, himself: bool, last_owner: bool) -> None:
    """Check a change of affiliation by somebody of affiliation ``actor`` (sections 5.2, 9 and 10).

    ``last_owner`` says that the room has no other owner than the one who is changed.
    """
    if _RANK[actor] < _ADMIN:
        raise StanzaError("forbidden", "Only admins and owners change affiliations.")
    if himself and after == "outcast":
        raise StanzaError("conflict", "You cannot ban yourself.")
    if actor != "owner":
        if _RANK[before] >= _ADMIN:  # a ban of somebody higher has a condition of its own (section 9.1)
            condition = "not-allowed" if after == "outcast" else "forbidden"
            raise StanzaError(condition, "Only owners change the affiliation of admins and owners.")
        if _RANK[after] >= _ADMIN:
            raise StanzaError("forbidden", "Only owners make admins and owners.")
    if before == "owner" != after and last_owner:
        raise StanzaError("conflict", "The room needs an owner.")


def check_role(actor: tuple[str, str], other: tuple[str, str], after: str) -> None:
    """Check a change of role; ``actor`` and ``other`` are (affiliation, role) (sections 5.1, 8 and 9.6 to 9.8)."""
    (actor_affiliation, actor_role), (affiliation, role) = actor, other
    is_admin = _RANK[actor_affiliation] >= _ADMIN
    if actor_role != "moderator" and not is_admin:
        raise StanzaError("forbidden", "Only moderators change roles.")
    if after == "moderator":  # takes nothing from anybody, so an admin may also ask it for an owner
        if not is_admin:
            raise StanzaError("forbidden", "Only admins and owners make moderators.")
    elif _RANK[affiliation] > _RANK[actor_affiliation]:
        raise StanzaError("not-allowed", "That occupant's affiliation is higher than yours.")
    elif after == "none":
        if role == "moderator" and not is_admin:
            raise StanzaError("not-allowed", "Moderators do not kick each other.")
    elif role == "moderator":
        if _RANK[affiliation] >= _ADMIN:
            raise StanzaError("not-allowed", "Admins and owners are always moderators.")
        if not is_admin:
            raise StanzaError("not-allowed", "Only admins and owners take a moderator's role away.")
