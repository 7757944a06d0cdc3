"""Record: the base class of all data in a plan.

Law 1 wants data, and the import budget does not allow dataclasses (25 ms of start-up before the first class).
A metaclass of a few lines does the same, and mypy checks it as if it were a dataclass.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self, dataclass_transform
else:

    def dataclass_transform(**_options: object) -> object:
        """Do nothing: the real one is only for type checkers."""
        return lambda cls: cls


class _RecordMeta(type):
    """Turn a class body's annotations into __slots__, its values into defaults, fields of bases first."""

    _fields: tuple[str, ...]
    _defaults: dict[str, Any]

    def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> _RecordMeta:
        fields: tuple[str, ...] = ()
        defaults: dict[str, Any] = {}
        for base in bases:
            fields += getattr(base, "_fields", ())
            defaults.update(getattr(base, "_defaults", {}))
        own = tuple(namespace.get("__annotations__", ()))
        for field in own:
            if field in namespace:
                defaults[field] = namespace.pop(field)
        namespace["__slots__"] = own
        made = super().__new__(cls, name, bases, namespace)
        made._fields = fields + own
        made._defaults = defaults
        return made


@dataclass_transform(kw_only_default=True)
class Record(metaclass=_RecordMeta):
    """Keyword-only fields with slots, equality and a readable repr.

    Raises:
        TypeError: a field without default is missing, or there is no such field.

    """

    def __init__(self, **values: Any) -> None:
        """Set every field from its keyword or its default."""
        cls = type(self)
        # One merge and one loop: a container with a thousand mounts makes thousands of records.
        merged = {**cls._defaults, **values}
        if len(merged) != len(cls._fields):
            raise cls._wrong(merged)
        try:
            for field, value in merged.items():
                setattr(self, field, value)
        except AttributeError:
            raise cls._wrong(merged) from None

    def but(self, **values: Any) -> Self:
        """Return a copy with some fields changed."""
        cls = type(self)
        return cls(**{**{field: getattr(self, field) for field in cls._fields}, **values})

    @classmethod
    def _wrong(cls, merged: dict[str, Any]) -> TypeError:
        """Return the error for wrong or missing fields."""
        missing = [field for field in cls._fields if field not in merged]
        if missing:
            return TypeError(f"{cls.__name__} needs {', '.join(missing)}")
        unknown = [field for field in merged if field not in cls._fields]
        return TypeError(f"{cls.__name__} has no {', '.join(unknown)}")

    def __eq__(self, other: object) -> bool:
        """Compare field by field."""
        if type(self) is not type(other):
            return NotImplemented
        return all(getattr(self, field) == getattr(other, field) for field in type(self)._fields)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Print the fields that differ from their defaults."""
        cls = type(self)
        shown = [
            f"{field}={getattr(self, field)!r}"
            for field in cls._fields
            if field not in cls._defaults or getattr(self, field) != cls._defaults[field]
        ]
        return f"{cls.__name__}({', '.join(shown)})"
