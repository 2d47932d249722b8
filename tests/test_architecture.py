"""The house has floors: a file imports from its own floor or below, and no files import each other in a circle."""

import ast
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[1] / "src"
FLOORS = (
    ("errors", "files", "registry", "system"),
    ("models", "losses", "evaluation", "protocols", "images", "class_orders", "phases", "schema", "configs"),
    ("methods", "datasets", "reporting"),
    ("memory", "interop", "inference"),
    ("engine",),
    ("tagger",),
    ("commands",),
    ("cli", "__main__"),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def modules(root):
    """Module name -> its file."""
    found = {}
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(root, package):
    """Module -> the package's modules that it imports anywhere, also inside functions and under ``TYPE_CHECKING``."""
    files = modules(root)
    graph = {}
    for name, path in files.items():
        named = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: relative imports hide where a file stands"
                named |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
        graph[name] = {other for other in named if other in files and other not in (name, package)}
    return graph


def circles(graph):
    """Groups of modules that reach each other."""
    reach = {}
    for start in graph:
        seen, todo = set(), list(graph[start])
        while todo:
            module = todo.pop()
            if module not in seen:
                seen.add(module)
                todo += graph.get(module, ())
        reach[start] = seen
    return {tuple(sorted({b for b in reach[a] if a in reach[b]} | {a})) for a in graph if a in reach[a]}


def upward(graph):
    """Imports that go to a higher floor."""

    def floor(module):
        return FLOOR[module.split(".")[1]]

    pairs = ((a, b) for a, others in graph.items() if "." in a for b in others)
    return {(a, b) for a, b in pairs if floor(b) > floor(a)}


@pytest.fixture(scope="module")
def graph():
    return imports(SOURCES, "mlcil")


def test_every_room_has_a_floor(graph):
    assert {module.split(".")[1] for module in graph if "." in module} == set(FLOOR)


def test_no_circle(graph):
    assert circles(graph) == set()


def test_no_arrow_runs_up(graph):
    assert upward(graph) == set()


def test_only_two_files_read_a_config():
    """Its check, and the builder of a run; commands hand it on."""
    readers = {
        path.relative_to(SOURCES / "mlcil").as_posix()
        for path in (SOURCES / "mlcil").rglob("*.py")
        if any(
            isinstance(node, (ast.Attribute, ast.Subscript))
            and isinstance(node.value, ast.Name)
            and node.value.id == "cfg"
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        )
    }
    assert readers - {"commands/config.py", "commands/demo.py"} == {"engine/config.py", "engine/build.py"}


def test_what_the_checks_would_find(tmp_path):
    (tmp_path / "mlcil" / "engine").mkdir(parents=True)
    (tmp_path / "mlcil" / "models").mkdir()
    (tmp_path / "mlcil" / "engine" / "a.py").write_text("def f():\n    from mlcil.engine import b\n")
    (tmp_path / "mlcil" / "engine" / "b.py").write_text("import mlcil.engine.a\n")
    (tmp_path / "mlcil" / "models" / "c.py").write_text("from mlcil.engine.a import f\n")
    graph = imports(tmp_path, "mlcil")
    assert circles(graph) == {("mlcil.engine.a", "mlcil.engine.b")}
    assert upward(graph) == {("mlcil.models.c", "mlcil.engine.a")}
