"""explain: what a property of config.json means, or what a container is and may do, in sentences.

Laws 1 and 2: all information comes from the tables of the schemas and of the planner. A topic that begins
with "/" is a pointer. Any other one is a container's id if there is such a container, else a name.
"""

from __future__ import annotations

import os

from pyrunc import jsonio, screen, store
from pyrunc.errors import Failure, excerpt, printable
from pyrunc.plan import tell
from pyrunc.spec import teach

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from pyrunc.cli.match import Command

_USUAL = 80
_LEAD = 11  # columns before the text of a line with a title


def main(cmd: Command) -> int:
    """Explain a topic.

    Raises:
        Failure: the topic is unknown.

    """
    json = cmd.json or cmd.format == "json"
    if not cmd.topic.startswith("/"):
        try:
            container = store.open_container(cmd.root or store.default_root(), cmd.topic)
        except Failure:
            container = None
        if container is not None:
            _container(cmd, container, json=json)
            return 0
    pages = _pages(cmd.topic)
    here = _here(cmd, cmd.topic) if cmd.topic.startswith("/") else None
    if json:
        found = [teach.document(page) for page in pages]
        print(jsonio.dumps_indent(found[0] if len(found) == 1 else found))
    elif pages:
        _print_pages(pages, here)
    else:
        words = (
            teach.option(cmd.topic)
            or f"a process that has it may {tell.CAPABILITIES[_capability(cmd.topic)]}"
        )
        _bullets([f"{cmd.topic}: {words}"], "")
    return 0


def _pages(topic: str) -> list[teach.Page]:
    """Return what is known of a pointer or a name; nothing for a word that is explained in one line.

    Raises:
        Failure: nothing is known.

    """
    if topic.startswith("/"):
        page = teach.page(topic)
        if page is not None:
            return [page]
        close = teach.near(topic)
        hint = f'did you mean "{close}"?' if close else "pyrunc explain / lists what there is"
        raise Failure(f"the specification has nothing at {excerpt(topic)}", hint=hint)
    found = teach.named(topic)
    if not found and not teach.option(topic) and _capability(topic) not in tell.CAPABILITIES:
        close = teach.guess(topic)
        hint = f'did you mean "{close}"?' if close else "pyrunc explain / lists what config.json may have"
        what = "there is no container, no property and no mount option of that name"
        raise Failure(f"{excerpt(topic)}: {what}", hint=hint)
    return found


def _capability(topic: str) -> str:
    name = topic.upper()
    return name if name.startswith("CAP_") else f"CAP_{name}"


def _here(cmd: Command, pointer: str) -> tuple[str, Any] | None:
    """Return the place and the value of a pointer in the bundle's config.json.

    Raises:
        Failure: its config.json cannot be read, or has nothing there.

    """
    if cmd.bundle is None:
        return None
    from pyrunc.spec.json_slow import Document, Malformed
    from pyrunc.spec.load import read

    path = os.path.join(cmd.bundle, "config.json")
    try:
        document = Document(read(path).decode())
        value: Any = document.value
        for part in pointer.strip("/").split("/") if pointer.strip("/") else ():
            name = part.replace("~1", "/").replace("~0", "~")
            value = value[int(name)] if isinstance(value, list) else value[name]
    except (Malformed, ValueError) as exc:
        raise Failure(f"{path}: {exc}", hint="pyrunc validate tells all about it") from None
    except (KeyError, IndexError, TypeError):
        raise Failure(f"{path} has nothing at {excerpt(pointer)}") from None
    return f"{path}:{document.line(pointer)}", value


def _print_pages(pages: list[teach.Page], here: tuple[str, Any] | None) -> None:
    if len(pages) > 3:
        print("There are several; give one of these pointers:")
        _bullets([f"{page.pointer}: {page.text.partition('. ')[0]}" for page in pages])
        return
    for number, page in enumerate(pages):
        if number:
            print()
        _print_page(page, here)


def _print_page(page: teach.Page, here: tuple[str, Any] | None) -> None:
    needed = ", which must be there" if page.needed else ""
    paint = screen.painter()
    pointer = page.pointer or "/"
    print(f"{paint(pointer, 'title') if paint else pointer}: {page.kind}{needed}")
    rows = [("", page.text)] if page.text else []
    rows += [("Values" if not number else "", value) for number, value in enumerate(_joined(page.values))]
    if page.does:
        rows.append(("pyrunc", page.does))
    if page.since:
        rows.append(("Since", f"Linux {page.since}"))
    if page.example is not None:
        rows.append(("Example", teach.example(page)))
    if here is not None:
        rows += [("Here", here[0]), ("", jsonio.dumps(here[1]))]
    widest = max((len(name) for name, _ in page.parts), default=0)
    rows += [
        ("Has" if not number else "", f"{name:{widest}}  {text}".rstrip())
        for number, (name, text) in enumerate(page.parts)
    ]
    _lines(rows)


def _joined(values: tuple[str, ...]) -> list[str]:
    """Return values as lines: those with a title one by one, words together."""
    if any(": " in value for value in values):
        return list(values)
    return [", ".join(values)] if values else []


def _lines(rows: Iterable[tuple[str, str]]) -> None:
    """Print titles and texts, folded to the width of the terminal; into a pipe each text is one line."""
    from pyrunc import text_tables

    width, paint = screen.width(), screen.painter()
    for title, text in rows:
        lead = f"{title:{_LEAD}}"
        shown = printable(text)
        folded = text_tables.fold(shown, max(_USUAL // 2, width - _LEAD)) if width else [shown]
        for number, line in enumerate(folded):
            begin = lead if not number else " " * _LEAD
            print((paint(begin, "note") if paint else begin) + line)


# -- a container ----


def _container(cmd: Command, container: store.Container, *, json: bool) -> None:
    from pyrunc.life import planning
    from pyrunc.spec import slips

    config: Any = store.load_config(container)
    made = planning.again(config, container, container.cgroup_manager, cmd.rootless)
    status = store.status(container)
    sections = tell.tell(config, made)
    systemd = container.cgroup_manager == "systemd"
    doubts = [f"{slip.pointer}: {slip.text}" for slip in slips.find(config, systemd=systemd)]
    sections.append(("Not as asked", list(made.warnings)))
    sections.append(("To think about", doubts))
    if json:
        data = {"id": container.id, "status": status, "sections": dict(sections)}
        print(jsonio.dumps_indent(data))
        return
    pid = f", pid {container.pid}" if status in ("created", "running", "paused") else ""
    made_at = f"it was created at {container.created} from the bundle {container.bundle}"
    _bullets([f"{container.id} is {status}{pid}; {made_at}"], "")
    for title, sentences in sections:
        if sentences:
            print()
            paint = screen.painter()
            print(paint(f"{title}:", "title") if paint else f"{title}:")
            _bullets(sentences)


def _bullets(sentences: Iterable[str], sign: str = "- ") -> None:
    from pyrunc import text_tables

    width = screen.width()
    for sentence in sentences:
        shown = sign + printable(sentence)
        for line in text_tables.fold(shown, width - 2) if width > _USUAL // 4 else [shown]:
            print(("  " if sign else "") + line)
