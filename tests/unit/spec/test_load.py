"""From a file to a config, or to a list of everything that is wrong with it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from pyrunc.errors import Failure
from pyrunc.spec import load, problems
from tests.support.specs import engine, small, with_linux

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the test fail if the slow path is used."""

    def judge(*_arguments: object, **_options: object) -> object:
        raise AssertionError("this is certainly right, and yet the slow path was asked")

    monkeypatch.setattr(problems, "judge", judge)


def write(folder: Path, content: object) -> str:
    path = folder / "config.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content, indent=1))
    return str(path)


def failure(path: str) -> str:
    with pytest.raises(Failure) as caught:
        load.load(path)
    assert caught.value.code == 1
    return caught.value.text()


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("config", [small(), engine()], ids=["small", "engine"])
def test_what_is_right_is_loaded_fast(tmp_path: Path, config: dict[str, Any]) -> None:
    path = write(tmp_path, config)
    loaded, raw = load.load(path)
    assert loaded == config
    assert json.loads(raw) == config


@pytest.mark.usefixtures("fast")
def test_null_is_absent(tmp_path: Path) -> None:
    config = small(hostname=None, hooks={"prestart": None}, mounts=[{"destination": "/x", "options": None}])
    config["linux"].update(timeOffsets=None, netDevices={"eth0": {"name": None}})
    loaded, _ = load.load(write(tmp_path, config))
    assert "hostname" not in loaded
    assert loaded["hooks"] == {}
    assert loaded["mounts"] == [{"destination": "/x"}]
    assert "timeOffsets" not in loaded["linux"]
    assert loaded["linux"]["netDevices"] == {"eth0": {}}


def test_null_is_absent_however_it_is_written(tmp_path: Path) -> None:
    text = json.dumps(small()).replace('"process"', '"hostname":\n\tnull, "process"')
    loaded, _ = load.load(write(tmp_path, text))
    assert loaded == small()


@pytest.mark.parametrize("name", ["annotations", "linux/sysctl", "linux/netDevices", "linux/timeOffsets"])
def test_null_in_a_map_is_a_value_of_a_wrong_type(tmp_path: Path, name: str) -> None:
    config = small()
    section, _, key = name.rpartition("/")
    (config[section] if section else config)[key] = {"monotonic": None}
    assert f"/{name}/monotonic: must be " in failure(write(tmp_path, config))


def test_a_map_that_is_none(tmp_path: Path) -> None:
    config = small(annotations="none", hostname=None)
    assert failure(write(tmp_path, config)).endswith('/annotations: must be an object, not the string "none"')


def test_a_null_where_something_is_required(tmp_path: Path) -> None:
    text = failure(write(tmp_path, small(process={"cwd": None, "args": ["sh"]})))
    assert text.endswith("config.json:6: /process: Cwd property must not be empty")


def test_odd_spellings_are_read_all_the_same(tmp_path: Path) -> None:
    config = small(hostname="a\\ud800b", annotations={"face": "\U0001f600", "nul": "\\u0000"})
    loaded, _ = load.load(write(tmp_path, json.dumps(config)))
    assert loaded == config


def test_a_required_name_in_other_letters(tmp_path: Path) -> None:
    """Go's decoder ignores upper and lower case, and runc's own tests write pagesize."""
    config = with_linux(resources={"hugepageLimits": [{"pagesize": "2MB", "limit": 1}]})
    loaded, _ = load.load(write(tmp_path, config))
    assert loaded["linux"]["resources"]["hugepageLimits"][0]["pageSize"] == "2MB"


def test_all_problems_are_told_with_their_places(tmp_path: Path) -> None:
    config = small(hostname=5)
    config["process"]["cwd"] = "x"
    path = write(tmp_path, config)
    assert failure(path).splitlines() == [
        f"{path}:7: /process/cwd: Cwd must be an absolute path",
        f"{path}:38: /hostname: must be a string, not the number 5",
    ]


def test_a_property_with_two_letters_swapped_is_named(tmp_path: Path) -> None:
    config = small()
    config["process"]["arsg"] = config["process"].pop("args")
    assert '/process/arsg: not a property of the specification; did you mean "args"?' in failure(
        write(tmp_path, config)
    )


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    path = str(tmp_path / "config.json")
    hint = "`pyrunc spec` writes one to begin with"
    assert failure(path) == f"JSON specification file {path} not found; {hint}"


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert failure(str(tmp_path)) == f"cannot read {tmp_path}: is a directory"


def test_a_file_without_end() -> None:
    assert failure("/dev/zero") == "cannot read /dev/zero: file too large"


def nested(depth: int) -> str:
    return json.dumps(small(extension=[])).replace("[]", "[" * depth + "]" * depth)


def test_an_extension_may_be_nested(tmp_path: Path) -> None:
    loaded, _ = load.load(write(tmp_path, nested(150)))
    assert "extension" in loaded


def test_deep_nesting_is_no_crash(tmp_path: Path) -> None:
    assert "nested more than 200 levels deep" in failure(write(tmp_path, nested(100_000)))


def test_a_process_from_a_file(tmp_path: Path) -> None:
    process = engine()["process"]
    assert load.load_process(write(tmp_path, process)) == process


def test_what_is_wrong_with_a_process_from_a_file(tmp_path: Path) -> None:
    path = write(tmp_path, {"cwd": "/", "args": [], "env": ["A"]})
    with pytest.raises(Failure) as caught:
        load.load_process(path)
    assert caught.value.text().splitlines() == [
        f"{path}:3: /args: args must not be empty",
        f"{path}:5: /env/0: invalid environment variable: missing '=' in \"A\"",
    ]


@pytest.mark.usefixtures("fast")
def test_a_process_put_together() -> None:
    assert load.check_process({"cwd": "/", "args": ["a"], "user": None}, "exec") == {
        "cwd": "/",
        "args": ["a"],
    }


def test_what_is_wrong_with_a_process_put_together() -> None:
    with pytest.raises(Failure) as caught:
        load.check_process({"cwd": "x", "args": ["\0"]}, "exec")
    assert caught.value.text().splitlines() == [
        'exec: /args/0: "\\u0000" contains a NUL character, where the kernel would cut it off',
        "exec: /cwd: Cwd must be an absolute path",
    ]


@pytest.mark.usefixtures("fast")
def test_resources() -> None:
    raw = b'{"memory": {"limit": -1, "swap": null}, "pids": {"limit": 0}}'
    assert load.parse_resources(raw, "-") == {"memory": {"limit": -1}, "pids": {"limit": 0}}


def test_what_is_wrong_with_resources() -> None:
    with pytest.raises(Failure) as caught:
        load.parse_resources(b'{"memory": {"limit": true},\n"pids": 5}', "<stdin>")
    assert caught.value.text().splitlines() == [
        "<stdin>:1: /memory/limit: must be an integer, not true",
        "<stdin>:2: /pids: must be an object, not the number 5",
    ]


def test_the_fast_path_has_no_heavy_imports(tmp_path: Path) -> None:
    """Each call of an engine pays for what the hot path imports."""
    import subprocess

    root = load.__file__.rsplit("/pyrunc/", 1)[0]
    program = (
        f"import sys; sys.path.insert(0, {root!r}); from pyrunc.spec.load import load; load(sys.argv[1]);"
        "print(*sorted(name for name in sys.modules if name.startswith(('pyrunc', 're', 'json', 'typing'))))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, write(tmp_path, engine())],
        capture_output=True,
        text=True,
        check=True,
    )
    own = ["", ".errors", ".files", ".jsonio", ".linux", ".linux._linux"]
    own += [".spec", ".spec.accept", ".spec.load", ".spec.meaning"]
    assert done.stdout.split() == [f"pyrunc{name}" for name in own]
