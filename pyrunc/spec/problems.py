"""Everything that is wrong with a config.json: each problem with its line and place, and a suggestion.

Law 2, the slow path: jsonschema checks by the schemas from which the fast acceptor is generated, the rules of
meaning.py check what the schemas accept, and near.py suggests words. A file that is certainly right does not
come here, so 100 ms may be spent.

Two rules are stricter than JSON Schema's, as in the acceptor and Go's decoder: an integer is written without
a fraction (1024.0 is none), and `$` in a pattern is the very end (not before a last newline).
"""

from __future__ import annotations

import json
import re
from functools import cache
from json import dumps as quoted
from typing import TYPE_CHECKING, Any, NamedTuple

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend

from pyrunc.errors import Failure, excerpt, printable, shortened
from pyrunc.jsonio import drop_nulls
from pyrunc.near import nearest
from pyrunc.plan import mounts
from pyrunc.spec import meaning
from pyrunc.spec.accept import accept
from pyrunc.spec.json_slow import Document, Malformed
from pyrunc.spec.meaning import escape
from pyrunc.spec.schemas import schemas

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_SHOWN = 25  # problems in one message; `pyrunc validate` shows all

# Kind of text -> schema file, definition.
_KINDS = {
    "config": ("config.json", "Config"),
    "process": ("process.json", "Process"),
    "resources": ("resources.json", "Resources"),
}

_TYPE_NAMES = {
    "object": "an object",
    "array": "an array",
    "string": "a string",
    "integer": "an integer",
    "boolean": "true or false",
}


class Problem(NamedTuple):
    """One problem: its line (0: unknown), JSON pointer, a sentence, its column or 0."""

    line: int
    pointer: str
    text: str
    column: int = 0

    def shown(self, path: str, severity: str = "") -> str:
        """Return it in a compiler's form: file, line, severity if asked for, place, sentence."""
        words = [path]
        if self.line:
            words[0] += f":{self.line}"
        if self.column:
            words[0] += f":{self.column}"
        if severity:
            words.append(severity)
        if self.pointer:
            words.append(quoted(self.pointer)[1:-1])
        # Names of properties and words of options come from the file.
        return shortened(printable(": ".join([*words, self.text])))


def judge(raw: bytes, path: str, kind: str, *, lines: bool = True) -> object:
    """Return the value of a text that is right after all.

    Args:
        raw: the text.
        path: its name in messages.
        kind: "config", "process" or "resources".
        lines: a user wrote the text, so its lines are useful.

    Raises:
        Failure: it is wrong; the message has a line for each problem.

    """
    report = Report(raw, kind)
    if not report.problems:
        return report.value
    problems = report.problems + report.hints
    if not lines:
        problems = [problem._replace(line=0, column=0) for problem in problems]
    shown = [problem.shown(path) for problem in problems[:MOST_SHOWN]]
    if len(problems) > MOST_SHOWN:
        shown.append(f"{path}: and {len(problems) - MOST_SHOWN} more problems; pyrunc validate shows all")
    raise _lines(shown)


def value_of(raw: bytes, path: str) -> object:
    """Return the value of a JSON text, whatever it is.

    Args:
        raw: the text.
        path: its name in messages.

    Raises:
        Failure: it is not UTF-8, or not JSON.

    """
    report = Report(raw, "")
    if report.problems:
        raise _lines([problem.shown(path) for problem in report.problems])
    return report.value


def place(problem: Failure, raw: bytes, path: str) -> Failure:
    """Return the planner's Failure with its line, and what else is wrong with the file.

    Args:
        problem: a Failure with a place in the file.
        raw: the file's text.
        path: its name in messages.

    """
    report = Report(raw, "config", formed=True)
    lines = report.problems
    if all(known.pointer != problem.pointer for known in lines):
        own = Problem(report.document.line(problem.pointer), problem.pointer, _sentence(problem))
        lines = sorted([*lines, own])
    return _lines([line.shown(path) for line in lines[:MOST_SHOWN]], code=problem.code)


def _lines(shown: list[str], code: int = 1) -> Failure:
    report = Failure("\n".join(shown), code=code)
    report.lines = True
    return report


def _sentence(problem: Failure) -> str:
    """Return a Failure's message without its place, which comes before it."""
    return Failure(problem.message, errno=problem.errno, hint=problem.hint).text()


class Report:
    """The problems of a text.

    value is the parsed text (without nulls), problems are errors in the order of their lines, hints are
    allowed but rarely intended: misspelled names of properties, and names that occur twice.
    """

    def __init__(self, raw: bytes, kind: str, *, formed: bool = False) -> None:
        """Check a text of a kind: "config", "process" or "resources"; "": only whether it is JSON.

        With `formed` only that is reported which the caller has refused already: a text that the acceptor
        accepts is not given to jsonschema, which needs a hundred times as long.
        """
        self.value: object = None
        self.problems: list[Problem] = []
        self.hints: list[Problem] = []
        self.kind = kind
        try:
            text = raw.decode()
        except UnicodeDecodeError as exc:
            line = raw.count(b"\n", 0, exc.start) + 1
            self.problems = [Problem(line, "", f"not UTF-8: byte 0x{raw[exc.start]:02x} ({exc.reason})")]
            return
        try:
            self.document = Document(text)
        except Malformed as exc:
            self.problems = [Problem(exc.line, "", f"not JSON: {exc.reason}", exc.column)]
            return
        self.value = self.document.value
        drop_nulls(self.value, meaning.MAPS)
        if kind and (not formed or not accept(self.value) or meaning.check(self.value)):  # type: ignore[arg-type]
            self._look()

    def _look(self) -> None:
        file, definition = _KINDS[self.kind]
        validator = _validator(file, definition)
        found = list(_half_characters(self.value, ""))
        _respell(self.value, validator)
        errors = list(validator.iter_errors(self.value))
        # For a value of a wrong type only that is reported, not also that its word is wrong.
        mistyped = {_pointer(error.absolute_path) for error in errors if error.validator == "type"}
        for error in errors:
            if error.validator == "type" or _pointer(error.absolute_path) not in mistyped:
                found += _worded(error)
        found += self._breaches(validator)
        unique = dict.fromkeys(found)
        self.problems = sorted(Problem(self.document.line(place), place, text) for place, text in unique)
        odd = [
            (place, "this property is there twice; the last one counts")
            for place, _ in self.document.repeated
        ]
        odd += _misspelled(self.value, file, definition, "")
        self.hints = sorted(Problem(self.document.line(place), place, text) for place, text in odd)

    def _breaches(self, validator: Any) -> list[tuple[str, str]]:
        """Apply the rules of meaning to what is left when everything with a wrong form is removed."""
        pruned: list[str] = []
        value = json.loads(json.dumps(self.value))
        while errors := list(validator.iter_errors(value)):
            for error in errors:
                place = _prune(value, list(error.absolute_path))
                if place:
                    pruned.append(place)
                elif self.kind == "config" and isinstance(value, dict):
                    value["ociVersion"] = ""  # required in a config, and no rule looks at it
                else:
                    return []
        if self.kind == "process":
            found = meaning.check_process(value, "")
        elif self.kind == "config":
            found = _rules(value, pruned)
        else:
            found = []
        # What is missing only because it was removed is no problem.
        return [(place, text) for place, text in found if not any(_related(place, gone) for gone in pruned)]


def _rules(config: Any, pruned: list[str]) -> list[tuple[str, str]]:
    view = meaning.View(config)
    found: list[tuple[str, str]] = []
    unreadable = any(_related("/linux/namespaces", gone) for gone in pruned)
    for rule in meaning.RULES:
        if not (unreadable and rule in meaning.NAMESPACE_RULES):
            rule(view, found)
    # Mount options have a grammar of their own, which the planner checks.
    return found + [(problem.pointer, _sentence(problem)) for problem in mounts.problems(config)]


def _related(place: str, gone: str) -> bool:
    return (place + "/").startswith(gone + "/") or (gone + "/").startswith(place + "/")


def _prune(value: Any, path: list[str | int]) -> str:
    """Remove the nearest property around a place from a value; return its pointer, "" if there is none.

    Items of a list cannot be removed: the others would change their places.
    """
    while path and isinstance(path[-1], int):
        path = path[:-1]
    if not path:
        return ""
    for step in path[:-1]:
        if isinstance(value, dict) and step not in value:
            break  # an earlier error has removed the whole section
        value = value[step]
    else:
        value.pop(path[-1], None)
    return _pointer(path)


# ---------------------------------------------------------------------------------- schemas


@cache
def _validator(file: str, definition: str) -> Any:
    """Return jsonschema's validator for a definition in a schema file."""
    checker = Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer)
    strict = extend(  # type: ignore[no-untyped-call]
        Draft202012Validator, validators={"pattern": _whole_pattern}, type_checker=checker
    )
    files = {name: _in_one(schema, name) for name, schema in schemas().items()}
    return strict({"$ref": f"#/$defs/{file}/$defs/{definition}", "$defs": files})


def _in_one(value: Any, file: str) -> Any:
    """Copy a schema into one document of all files: references become places in it.

    So no version of jsonschema has to find a file; that changed with 4.18. $schema is left out: jsonschema
    would change to a validator without our stricter rules.
    """
    if isinstance(value, list):
        return [_in_one(item, file) for item in value]
    if not isinstance(value, dict):
        return value
    copy = {name: _in_one(inner, file) for name, inner in value.items() if name not in ("$schema", "$id")}
    if "$ref" in value:
        target, _, pointer = value["$ref"].partition("#")
        copy["$ref"] = f"#/$defs/{target or file}{pointer}"
    return copy


def _is_integer(_checker: object, instance: object) -> bool:
    return type(instance) is int


def _whole_pattern(_validator: object, pattern: str, instance: object, _schema: object) -> Iterator[Any]:
    # Each "$" of JSON Schema is the end of the text; Python's is also before a newline at the end.
    if isinstance(instance, str) and not re.search(pattern.replace("$", r"\Z"), instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _resolve(schema: dict[str, Any], file: str) -> tuple[dict[str, Any], str]:
    """Follow $ref to the end; return the schema and its file."""
    while "$ref" in schema:
        target, _, pointer = schema["$ref"].partition("#/$defs/")
        file = target or file
        schema = schemas()[file]["$defs"][pointer]
    return schema, file


# ---------------------------------------------------------------------------------- sentences


def _worded(error: ValidationError) -> list[tuple[str, str]]:
    """Turn an error of jsonschema into places and messages."""
    place = _pointer(error.absolute_path)
    schema: dict[str, Any] = error.schema  # type: ignore[assignment]
    if error.validator == "required":
        names = [name for name in schema["required"] if name not in error.instance]  # type: ignore[operator]
        return [(place, _missing(name, schema, error.instance)) for name in names]  # type: ignore[arg-type]
    if "propertyNames" in error.absolute_schema_path:
        place += "/" + escape(str(error.instance))
    if error.validator == "type":
        return [(place, f"must be {_TYPE_NAMES[schema['type']]}, not {_described(error.instance)}")]
    return [(place, _unfit(error.instance, schema))]


def _unfit(value: object, schema: dict[str, Any]) -> str:
    """Return what is wrong with a value of the right type."""
    if "minItems" in schema:
        return "must not be empty"
    if "x-says" in schema:
        text = str(schema["x-says"]).format(value=value, json=_json(value))
    elif "minimum" in schema:
        text = f"{value} is out of range ({schema['minimum']} to {schema['maximum']})"
    else:
        text = f"{_json(value)} is not a word that may stand here"
    if "enum" in schema:
        text += _did_you_mean(str(value), schema["enum"])
    return text


def _missing(name: str, schema: dict[str, Any], instance: dict[str, object]) -> str:
    said: dict[str, str] = schema.get("x-missing", {})
    text = said.get(name) or f"property {quoted(name)} is missing"
    others = [other for other in instance if other not in schema["properties"]]
    close = _closest(name, others)
    return f"{text}; did you mean {quoted(close)} to be it?" if close else text


def _did_you_mean(value: str, words: list[str]) -> str:
    words = [word for word in words if word]
    close = _closest(value, words)
    if close:
        return f"; did you mean {quoted(close)}?"
    if len(words) <= 10:
        return f" (one of {', '.join(words)})"
    return ""


def _closest(word: str, words: list[str], cutoff: float = 0.6) -> str:
    """Return the word that was probably meant, or ""."""
    folded = {other.casefold(): other for other in words}
    written, word = word, word.casefold()
    # A user may leave out a common prefix (INTERLEAVE for MPOL_INTERLEAVE), or shorten a word (net for
    # network): difflib looks at the length first.
    tails = [other for other in folded if word and other.endswith("_" + word)]
    heads = [other for other in folded if len(word) >= 3 and other.startswith(word[:3])]
    close = [min(tails, key=len)] if tails else []
    if close:
        return folded[close[0]]
    near = nearest(written, words, cutoff)
    if not near and cutoff < 0.8 and len(heads) == 1:
        near = folded[heads[0]]
    return near


def _described(value: object) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        return f"the string {_json(value)}"
    return f"the number {excerpt(str(value))}"


def _json(value: object) -> str:
    text = json.dumps(value)
    return f'"{excerpt(text[1:-1])}"' if isinstance(value, str) else excerpt(text)


def _pointer(path: Any) -> str:
    return "".join("/" + escape(str(step)) for step in path)


# ---------------------------------------------------------------------------------- oddities


def _half_characters(value: object, pointer: str) -> Iterator[tuple[str, str]]:
    """Find strings that are no text: one half of a UTF-16 pair has no UTF-8 form."""
    if isinstance(value, str):
        if not _encodable(value):
            yield pointer, f"{_json(value)} has half a character: \\ud800 to \\udfff come in pairs"
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _half_characters(item, f"{pointer}/{index}")
    elif isinstance(value, dict):
        for name, inner in value.items():
            place = f"{pointer}/{escape(name)}"
            if not _encodable(name):
                yield place, f"the name {_json(name)} has half a character: \\ud800 to \\udfff come in pairs"
            yield from _half_characters(inner, place)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _respell(value: object, validator: Any) -> None:
    """Rename a required property that is there with other capital letters ("pagesize").

    Go's decoder does not distinguish capital letters, and some files rely on it. This is done only if there
    would be an error otherwise.
    """
    for error in validator.iter_errors(value):
        if error.validator == "required":
            instance: dict[str, object] = error.instance
            names = {name.casefold(): name for name in reversed(instance)}
            for name in error.validator_value:
                if name not in instance and name.casefold() in names:
                    instance[name] = instance[names[name.casefold()]]


def _misspelled(value: object, file: str, definition: str, pointer: str) -> Iterator[tuple[str, str]]:
    """Find unknown properties that are similar to a known one."""
    yield from _misspelled_in(value, {"$ref": f"{file}#/$defs/{definition}"}, file, pointer)


def _misspelled_in(
    value: object, schema: dict[str, Any], file: str, pointer: str
) -> Iterator[tuple[str, str]]:
    schema, file = _resolve(schema, file)
    if isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            yield from _misspelled_in(item, schema["items"], file, f"{pointer}/{index}")
    elif isinstance(value, dict):
        known: dict[str, Any] = schema.get("properties", {})
        free = [name for name in known if name not in value]
        for name, inner in value.items():
            place = f"{pointer}/{escape(name)}"
            if name in known:
                yield from _misspelled_in(inner, known[name], file, place)
            elif "additionalProperties" in schema:
                yield from _misspelled_in(inner, schema["additionalProperties"], file, place)
            else:
                close = _closest(name, [*free, *known], 0.8)
                if close:
                    yield place, f"not a property of the specification; did you mean {quoted(close)}?"
