"""The house: imports run one way, functions are short, lines fit, and what is light stays light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import ROOT, environment

#: The rooms of the product and the rooms below each, which it may import.
BELOW = {
    "scripts": {"datasets", "models", "games", "utils"},
    "datasets": {"games", "utils"},
    "models": {"games", "utils"},
    "games": {"utils"},
    "utils": set(),
}

#: Commands that lie in the room that they belong to and stand with the scripts: run, and imported by nothing.
COMMANDS = {"datasets.variants.__main__"}

LONGEST_FUNCTION = 40
LONGEST_LINE = 120


def product_files() -> list[Path]:
    """All Python files of the product."""
    rooms = [path for room in BELOW if room != "scripts" for path in (ROOT / room).rglob("*.py")]
    return sorted([*ROOT.glob("*.py"), *rooms])


def all_files() -> list[Path]:
    """All Python files of the repository."""
    beside = [path for room in ("benchmarks", "tests") for path in (ROOT / room).rglob("*.py")]
    return product_files() + sorted(beside)


def module_of(path: Path) -> str:
    """The name that a file is imported by."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


SCRIPTS = {path.stem for path in ROOT.glob("*.py")}
MODULES = {module_of(path): path for path in all_files()}


def room_of(module: str) -> str:
    """The room of a module: its folder, or "scripts"."""
    first = module.split(".")[0]
    return "scripts" if first in SCRIPTS or module in COMMANDS else first


def imported_by(path: Path) -> set[str]:
    """Modules of the repository that a file imports, anywhere in it: at its top, in functions, for types."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            # `from games.makehuman import looks` imports a module, `from utils.run import Run` a name of one.
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in MODULES else str(node.module))
    return {module for module in found if module in MODULES}


IMPORTS = {module: imported_by(path) for module, path in MODULES.items()}
PRODUCT = {module: IMPORTS[module] for module in map(module_of, product_files())}


def circle_in(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import one another in a circle, the first one again at the end; none if there is no circle."""
    done: set[str] = set()

    def visit(module: str, way: list[str]) -> list[str]:
        if module in way:
            return [*way[way.index(module) :], module]
        if module in done:
            return []
        for imported in sorted(graph[module]):
            circle = visit(imported, [*way, module])
            if circle:
                return circle
        done.add(module)
        return []

    return next(filter(None, (visit(module, []) for module in sorted(graph))), [])


def functions_of(path: Path) -> Iterator[tuple[str, int]]:
    """Name and number of lines of every function in a file, but for `__init__`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name != "__init__":
            yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node.end_lineno - node.lineno + 1


# --- imports --------------------------------------------------------------------------------------


def test_the_reader_of_imports_sees_every_kind_of_import():
    """Otherwise the tests below could not fail."""
    assert "utils.config" in IMPORTS["f2p_trainer"]
    assert "games.writer" in IMPORTS["datasets.sources"]  # inside a function
    assert "games.makehuman.looks" in IMPORTS["games.makehuman"]  # from a package
    assert "tests.helpers" in IMPORTS["tests.test_house"]
    assert set(map(room_of, PRODUCT)) == set(BELOW)


@pytest.mark.parametrize("room", BELOW)
def test_imports_run_one_way(room):
    allowed = BELOW[room] | ({room} - {"scripts"})
    arrows = [
        f"{module} imports {imported}"
        for module, imports in PRODUCT.items()
        if room_of(module) == room
        for imported in sorted(imports)
        if room_of(imported) not in allowed
    ]
    assert arrows == []


def test_the_commands_are_there():
    assert set(MODULES) >= COMMANDS


def test_nothing_but_tests_imports_tests():
    arrows = [
        f"{module} imports {imported}"
        for module, imports in IMPORTS.items()
        if room_of(module) != "tests"
        for imported in sorted(imports)
        if room_of(imported) == "tests"
    ]
    assert arrows == []


def test_no_modules_import_one_another_in_a_circle():
    assert circle_in(IMPORTS) == []


def test_a_circle_would_be_found():
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["b", "c", "b"]


def test_only_the_games_rooms_themselves_know_a_renderer():
    """Whoever wants pictures of a game asks `games.game` for them, which loads a renderer only then."""
    drawing = {module for module in PRODUCT if module.startswith("games.makehuman")}
    users = {module for module, imports in PRODUCT.items() if imports & drawing} - drawing
    assert len(drawing) > 10
    assert users == set()


#: What takes long to import, and is needed by a part of the work alone: by workers, at the end, by some configurations.
HEAVY = ("games.makehuman", "joblib", "lpips", "matplotlib", "scipy", "tensorboard", "torchvision")

#: What must start fast; the games come first, as they do without PyTorch.
LIGHT = ("games.__main__", *sorted(SCRIPTS))


def test_a_script_loads_nothing_heavy_before_its_work_asks_for_it():
    """To show --help, to find a run finished or to start a worker must not take seconds of importing."""
    code = f"import importlib, sys\nheavy = {HEAVY}\n"
    for module in LIGHT:
        code += f"importlib.import_module({module!r})\n"
        code += f"print({module!r}, [name for name in sys.modules if name.startswith(heavy)], 'torch' in sys.modules)\n"
    told = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    games, *others = told.stdout.splitlines()
    assert games == "games.__main__ [] False"
    assert others == [f"{module} [] True" for module in LIGHT[1:]]


# --- functions and lines --------------------------------------------------------------------------


def test_no_function_is_long():
    lengths = dict(function for path in all_files() for function in functions_of(path))
    assert {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION} == {}


def test_no_line_is_long():
    long = []
    for path in all_files():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if len(line) > LONGEST_LINE:
                long.append(f"{path.relative_to(ROOT)}:{number} ({len(line)} columns)")
    assert long == []


def test_product_code_has_no_assertion():
    """What can go wrong is said in a sentence; assertions are for tests."""
    found = []
    for path in product_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Assert):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []


def test_nothing_is_imported_from_conftest():
    assert [module for module, imports in IMPORTS.items() if "tests.conftest" in imports] == []
