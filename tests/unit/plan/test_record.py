"""Record: slots, defaults, equality, and the error for a misspelled field."""

from __future__ import annotations

import pytest

from pyrunc.plan.record import Record


class Point(Record):
    """Two fields, one with a default."""

    x: int
    y: int = 0


class Named(Point):
    """A field more than its base."""

    name: str = ""


def test_fields_and_defaults() -> None:
    point = Point(x=1)
    assert (point.x, point.y) == (1, 0)
    assert (Named(x=1, name="a").x, Named(x=1, name="a").name) == (1, "a")


def test_a_copy_with_something_changed() -> None:
    one = Named(x=1, name="a")
    other = one.but(y=2)
    assert (other, one) == (Named(x=1, y=2, name="a"), Named(x=1, name="a"))
    with pytest.raises(TypeError, match="Named has no z"):
        one.but(z=1)


def test_equality_is_by_type_and_fields() -> None:
    assert Point(x=1) == Point(x=1, y=0)
    assert Point(x=1) != Point(x=2)
    assert Named(x=1) != Point(x=1)
    with pytest.raises(TypeError, match="unhashable"):
        hash(Point(x=1))


def test_repr_shows_what_differs_from_the_defaults() -> None:
    assert repr(Named(x=1, name="a")) == "Named(x=1, name='a')"
    assert repr(Point(x=1, y=2)) == "Point(x=1, y=2)"


def test_missing_and_unknown_fields_are_named() -> None:
    with pytest.raises(TypeError, match="Point needs x"):
        Point()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="Point has no z"):
        Point(x=1, z=2)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="Named needs x"):  # as many as there are fields, but not these
        Named(name="a", z=2)  # type: ignore[call-arg]


def test_there_is_no_room_for_other_attributes() -> None:
    point = Point(x=1)
    with pytest.raises(AttributeError):
        point.z = 1  # type: ignore[attr-defined]
