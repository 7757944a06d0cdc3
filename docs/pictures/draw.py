"""Draw the pictures of README.md: commands are run on a terminal, and what it shows becomes an SVG.

`make pictures` does that, as root. Nothing of the machine is seen in them: the bundles are copied to a place
that only a mount namespace of this program has.
"""

from __future__ import annotations

import fcntl
import html
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
TOP = HERE.parent.parent
PLACE = Path("/srv")
ROOT = ["--root", str(PLACE / "state")]
ENVIRONMENT = {"PATH": f"{PLACE}/bin:/usr/bin:/bin", "TERM": "xterm-256color", "LANG": "C.UTF-8"}
COLUMNS = 112
WIDTH, HEIGHT, MARGIN = 8.4, 19, 14  # of a character, of a line, around the text; in pixels
COLOURS = ("#6e7681", "#ff7b72", "#7ee787", "#e3b341", "#79c0ff", "#d2a8ff", "#76e3ea", "#e6edf3")
TEXT, BACKGROUND, FAINT, PROMPT = "#d5dbe1", "#161b22", "#8b949e", "#7ee787"


class Picture(NamedTuple):
    """One picture.

    Attributes:
        name: of the file.
        command: what is typed, without sudo.
        before, after: commands that are run and not shown.
        lines: how many lines are shown at most; of the rest three dots are left.

    """

    name: str
    command: str
    before: str = ""
    after: str = ""
    lines: int = 60


PICTURES = (
    Picture("plan", "pyrunc plan -b hello", lines=22),
    Picture(
        "mounts",
        "pyrunc mounts hello",
        "pyrunc create -b hello hello",
        "pyrunc delete --force hello",
        lines=22,
    ),
    Picture("error", "pyrunc run -b broken box"),
)


class Run(NamedTuple):
    """Characters of one look."""

    text: str
    colour: str = TEXT
    bold: bool = False


def main() -> int:
    """Draw all pictures into a directory, by default this one."""
    if os.geteuid() != 0:
        print("making a container takes root: sudo make pictures", file=sys.stderr)
        return 1
    words = sys.argv[1:]
    if words[:1] != ["--inside"]:
        own = ["unshare", "--mount", "--cgroup", "--propagation", "private"]
        return subprocess.run([*own, sys.executable, __file__, "--inside", *words], check=False).returncode
    into = Path(words[1]).resolve() if len(words) > 1 else HERE
    prepare()
    for picture in PICTURES:
        quietly(picture.before)
        said = shown(picture.command)
        quietly(picture.after)
        (into / f"{picture.name}.svg").write_text(drawn(picture, screen(said)))
    return 0


def prepare() -> None:
    """Make the bundles and the command, where nobody else sees them."""
    checkout = os.open(TOP, os.O_PATH)
    for kind, place in (("tmpfs", str(PLACE)), ("cgroup2", "/sys/fs/cgroup")):
        subprocess.run(["mount", "-t", kind, kind, place], check=True)
    if not TOP.exists():  # it lies below one of them
        TOP.mkdir(parents=True)
        words = ["mount", "--no-canonicalize", "--bind", f"/proc/self/fd/{checkout}", str(TOP)]
        subprocess.run(words, check=True, pass_fds=[checkout])
    os.close(checkout)
    shutil.copytree(TOP / "bundles/hello", PLACE / "hello", symlinks=True)
    (PLACE / "broken/rootfs").mkdir(parents=True)
    config = json.loads((PLACE / "hello/config.json").read_text())
    config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILES", "hard": 1024, "soft": 1024}]
    config["mounts"][0]["options"][2] = "nosiud"
    (PLACE / "broken/config.json").write_text(json.dumps(config, indent=2))
    command = PLACE / "bin/pyrunc"
    command.parent.mkdir()
    start = f"import sys; sys.path[:0] = {[str(TOP), *sys.path[1:]]!r}; sys.argv[1:1] = {ROOT!r}"
    command.write_text(f"#!{sys.executable} -I\n{start}\nfrom pyrunc.__main__ import main\nmain()\n")
    command.chmod(0o755)


def quietly(command: str) -> None:
    """Run a command that no picture shows; a container that it leaves must not hold a terminal."""
    if command:
        quiet = subprocess.DEVNULL
        subprocess.run(
            command.split(), stdin=quiet, stdout=quiet, cwd=PLACE, env=ENVIRONMENT, timeout=60, check=True
        )


def shown(command: str) -> str:
    """Return what a terminal gets from a command."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    process = subprocess.Popen(
        command.split(), stdin=theirs, stdout=theirs, stderr=theirs, cwd=PLACE, env=ENVIRONMENT
    )
    os.close(theirs)
    found = b""
    try:
        while data := os.read(ours, 1 << 16):
            found += data
    except OSError:  # EIO: nobody has the other side any more
        pass
    process.wait()
    os.close(ours)
    return found.decode()


def screen(said: str) -> list[list[Run]]:
    """Return the lines of a terminal: bold and colours are understood, long lines go on below."""
    lines: list[list[Run]] = []
    look = Run("")
    for line in said.replace("\r", "").rstrip("\n").split("\n"):
        row: list[Run] = []
        for part in re.split(r"(\x1b\[[0-9;?]*[A-Za-z])", line):
            if part.startswith("\x1b"):
                for code in re.findall(r"\d+", part) or ["0"] if part.endswith("m") else []:
                    look = changed(look, int(code))
            elif part:
                row.append(look._replace(text=part))
        lines += wrapped(row)
    return lines


def changed(look: Run, code: int) -> Run:
    """Return how characters look after a code of the terminal's."""
    if code == 0:
        return Run("")
    if code == 1:
        return look._replace(bold=True)
    if code == 2:
        return look._replace(colour=FAINT)
    if code in range(30, 38) or code in range(90, 98):
        return look._replace(colour=COLOURS[code % 10])
    return look


def wrapped(row: list[Run]) -> list[list[Run]]:
    """Return the lines that one line takes on the terminal."""
    lines: list[list[Run]] = [[]]
    room = COLUMNS
    for run in row:
        text = run.text
        while text:
            if not room:
                lines.append([])
                room = COLUMNS
            lines[-1].append(run._replace(text=text[:room]))
            room, text = room - len(text[:room]), text[room:]
    return lines


def drawn(picture: Picture, lines: list[list[Run]]) -> str:
    """Return a picture as SVG."""
    prompt = [Run("$ ", PROMPT, bold=True), Run(f"sudo {picture.command}", TEXT, bold=True)]
    if len(lines) > picture.lines:
        lines = [*lines[: picture.lines], [Run("...", FAINT)]]
    rows = [prompt, *lines]
    across = max(sum(len(run.text) for run in row) for row in rows)
    wide, high = across * WIDTH + 2 * MARGIN, len(rows) * HEIGHT + 2 * MARGIN
    texts = []
    for number, row in enumerate(rows):
        at = 0
        for run in row:
            weight = ' font-weight="bold"' if run.bold else ""
            # Each group of words has a place and a length of its own: columns stand in any font.
            for words in re.finditer(r"\S+(?: \S+)*", run.text):
                left, down = MARGIN + (at + words.start()) * WIDTH, MARGIN + number * HEIGHT + 14
                texts.append(
                    f'<text x="{left:.1f}" y="{down}" fill="{run.colour}"{weight}'
                    f' textLength="{len(words[0]) * WIDTH:.1f}">{html.escape(words[0])}</text>'
                )
            at += len(run.text)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide:.0f}" height="{high}"'
        f' viewBox="0 0 {wide:.0f} {high}" role="img">\n'
        f"<title>{html.escape(picture.command)}</title>\n"
        f'<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>\n'
        '<g font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="14">\n'
        + "\n".join(texts)
        + "\n</g>\n</svg>\n"
    )


if __name__ == "__main__":
    sys.exit(main())
