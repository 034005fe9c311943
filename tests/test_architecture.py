"""The architecture page and the code agree: rooms, doors, no cycles, light verbs that load nothing heavy."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "faiss", "sentence_transformers", "bs4", "pdfplumber")


def page_table(name):
    """Return the rows of a table of docs/architecture.md, without head and backticks."""
    page = (ROOT / "docs/architecture.md").read_text()
    table = page.split(f"<!-- {name}:begin -->")[1].split(f"<!-- {name}:end -->")[0]
    lines = [line.strip("| ").replace("`", "") for line in table.strip().splitlines()[2:]]
    return [[cell.strip() for cell in line.split("|")] for line in lines]


def rooms_of_the_page():
    """Return room -> its modules and folders of data_builders."""
    return {name: [module.strip() for module in modules.split(",")] for name, modules, _ in page_table("rooms")}


ROOM_OF = {module: name for name, modules in rooms_of_the_page().items() for module in modules}


def room(module):
    """Return the room of a module, as docs/architecture.md calls it."""
    parts = module.split(".")
    if parts[0] == "data_builders":
        return ROOM_OF[parts[1]]
    return "settings" if parts[-1] == "settings" else ".".join(parts[:2])


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are absolute"
            package = (ROOT / node.module.replace(".", "/")).is_dir()
            yield from (f"{node.module}.{alias.name}" if package else node.module for alias in node.names)


def real_module(name):
    """Cut what is no module (a class imported from a package) off a dotted name."""
    path = ROOT / name.replace(".", "/")
    return name if path.is_dir() or path.with_suffix(".py").is_file() else name.rpartition(".")[0]


def doors_of_the_code():
    doors = {}
    for path in [*(ROOT / "rag_ft").rglob("*.py"), *(ROOT / "data_builders").rglob("*.py")]:
        if path.parent == ROOT / "data_builders" and path.stem == "__init__":
            continue
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        names = {
            real_module(name) for name in imports_of(path) if name.partition(".")[0] in ("rag_ft", "data_builders")
        }
        found = {room(name) for name in names - {"rag_ft", "data_builders"}}  # of rag_ft itself, its version
        if found - {room(module)}:
            doors.setdefault(room(module), set()).update(found - {room(module)})
    return doors


def doors_of_the_page():
    return {name: {item.strip() for item in imports.split(",")} for name, imports in page_table("doors")}


class TestDoors:
    def test_rooms_import_what_the_architecture_page_says(self):
        assert doors_of_the_code() == doors_of_the_page()

    def test_every_module_of_data_builders_stands_in_one_room(self):
        named = [module for modules in rooms_of_the_page().values() for module in modules]
        there = {path.stem for path in (ROOT / "data_builders").glob("*.py")} - {"__init__"}
        there |= {path.parent.name for path in (ROOT / "data_builders").glob("*/__init__.py")}
        assert sorted(named) == sorted(there)

    def test_foundation_imports_nothing_but_itself(self):
        assert "foundation" not in doors_of_the_page()

    def test_there_is_no_cycle_between_rooms(self):
        assert list(TopologicalSorter(doors_of_the_page()).static_order())

    def test_data_builders_import_nothing_of_rag_ft(self):
        for path in (ROOT / "data_builders").rglob("*.py"):
            assert not [name for name in imports_of(path) if name.partition(".")[0] == "rag_ft"], path

    @pytest.mark.parametrize(
        "arguments", [["--help"], ["check", "quickstart"], ["recipes", "list"], ["schema"]], ids=" ".join
    )
    def test_light_verbs_import_nothing_heavy(self, arguments):
        script = (
            f"import sys; from rag_ft.cli import main; main({arguments!r}); sys.stderr.write(' '.join(sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert not {name.partition(".")[0] for name in done.stderr.split()} & set(HEAVY)

    def test_settings_modules_load_without_anything_heavy(self):
        names = [
            ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in (ROOT / "rag_ft").rglob("settings.py")
        ]
        script = f"import sys, importlib; [importlib.import_module(name) for name in {names!r}]; print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
        assert not {name.partition(".")[0] for name in done.stdout.split()} & set(HEAVY)
