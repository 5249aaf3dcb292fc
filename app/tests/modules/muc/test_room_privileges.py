"""Every change of affiliation and role against the tables of XEP-0045, section 5: pure, and through a room."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestbox.core.errors import StanzaError
from nestbox.modules.muc.privileges import (
    AFFILIATIONS,
    ROLES,
    check_affiliation,
    check_role,
    role_after,
    role_for,
)

# Section 5.2.2: who makes somebody of the row's affiliation one of the column's. o: owner, a: admin or owner.
AFFILIATION_CHART = {
    ("outcast", "none"): "a", ("outcast", "member"): "a", ("outcast", "admin"): "o", ("outcast", "owner"): "o",
    ("none", "outcast"): "a", ("none", "member"): "a", ("none", "admin"): "o", ("none", "owner"): "o",
    ("member", "outcast"): "a", ("member", "none"): "a", ("member", "admin"): "o", ("member", "owner"): "o",
    ("admin", "outcast"): "o", ("admin", "none"): "o", ("admin", "member"): "o", ("admin", "owner"): "o",
    ("owner", "outcast"): "o", ("owner", "none"): "o", ("owner", "member"): "o", ("owner", "admin"): "o",
}  # fmt: skip
# Section 7.2.3, and 5.1.2: the role with which one enters.
ENTRY = {
    ("none", True): "visitor", ("none", False): "participant", ("member", True): "participant",
    ("member", False): "participant", ("admin", True): "moderator", ("admin", False): "moderator",
    ("owner", True): "moderator", ("owner", False): "moderator",
}  # fmt: skip
affiliations = st.sampled_from(AFFILIATIONS)
roles = st.sampled_from(ROLES[1:])


def refusal(check, *args, **kwargs):
    """The condition with which a change is refused, None when it is not."""
    try:
        check(*args, **kwargs)
    except StanzaError as error:
        return error.condition
    return None


@given(affiliations, affiliations, affiliations, st.booleans())
def test_affiliations_change_as_the_chart_says(actor, before, after, last_owner):
    found = refusal(check_affiliation, actor, before, after, himself=False, last_owner=last_owner)
    if actor not in ("admin", "owner"):
        assert found == "forbidden"
        return
    who = AFFILIATION_CHART.get((before, after))
    if who == "o" and actor == "admin":
        assert found == ("not-allowed" if after == "outcast" else "forbidden")
    elif who is not None:
        assert found == ("conflict" if before == "owner" and last_owner else None)


@given(st.sampled_from(("admin", "owner")))
def test_nobody_bans_himself(actor):
    assert refusal(check_affiliation, actor, actor, "outcast", himself=True, last_owner=False) == "conflict"


@given(affiliations, roles, affiliations, roles, st.sampled_from(ROLES))
def test_roles_change_as_the_chart_says(actor_affiliation, actor_role, affiliation, role, after):
    found = refusal(check_role, (actor_affiliation, actor_role), (affiliation, role), after)
    rank = AFFILIATIONS.index
    is_admin = rank(actor_affiliation) >= rank("admin")
    if actor_role != "moderator" and not is_admin:
        assert found == "forbidden"  # section 5.1.1: visitors and participants change nobody's role
    elif found is None:
        assert after == "moderator" or rank(affiliation) <= rank(actor_affiliation)  # 5.1.2: takes from nobody above
        assert after != "moderator" or is_admin  # only admins and owners grant moderator privileges
        if role == "moderator" and after != "moderator":
            assert is_admin
            assert after == "none" or affiliation not in ("admin", "owner")  # 5.2.1, note **
    else:
        assert (
            not is_admin
            if after == "moderator"
            else rank(affiliation) > rank(actor_affiliation)
            or (role == "moderator" and (not is_admin or affiliation in ("admin", "owner")))
        )


@given(st.sampled_from(AFFILIATIONS[1:]), st.booleans())
def test_the_role_on_entering(affiliation, moderated):
    assert role_for(affiliation, moderated) == ENTRY[affiliation, moderated]


@given(st.sampled_from(AFFILIATIONS[1:]), st.sampled_from(AFFILIATIONS[1:]), roles, st.booleans())
def test_a_role_follows_the_affiliation(before, after, role, moderated):
    got = role_after(role, before, after, moderated)
    if after in ("admin", "owner") and AFFILIATIONS.index(after) > AFFILIATIONS.index(before):
        assert got == "moderator"
    if after == "member" and before == "none":
        assert ROLES.index(got) >= ROLES.index("participant")  # membership brings voice
    if before in ("admin", "owner") and after in ("none", "member"):
        assert got == ENTRY[after, moderated]
    if before == after:
        assert got == role


@pytest.mark.parametrize("affiliation", AFFILIATIONS)
def test_an_owner_without_successor_stays(affiliation):
    found = refusal(check_affiliation, "owner", "owner", affiliation, himself=True, last_owner=True)
    assert found == (None if affiliation == "owner" else "conflict")
