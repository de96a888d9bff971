"""The package as a building: imports go down, files stay small, nothing private, nothing at import.

A module imports only from lower floors, except along the sideways edges written out below.
"""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "jaxrelu"

FLOORS = {
    "pytrees": 0, "numerics": 0, "rows": 0, "batches": 0, "status": 0, "loops": 0,
    "line_search": 0, "nonnegative": 0,
    "losses": 1, "proximal": 1, "projection": 1, "cones": 1, "enumeration": 1, "patterns": 1,
    "networks": 1, "polytope": 1, "simplex": 1, "directions": 1,
    "program": 2, "separability": 2, "exact_fit": 2,
    "optimality": 3, "solution": 3, "sharding": 3, "polar": 3, "local_training": 3,
    "solvers": 4, "implicit": 4, "pattern_pool": 4,
    "solve": 5, "lane_steps": 5, "lanes": 5, "grid": 5, "memory": 5, "driver": 5, "path": 5,
    "master": 5,
    "mapping": 6, "optimal_set": 6, "selection": 6, "symmetries": 6,
    "improvement": 6, "stationarity": 6, "slots": 6, "connectivity": 6, "descent": 6,
    "irreducible": 6, "pruning": 6, "sampling": 6, "sensitivity": 6,
    "structure": 6, "breakpoints": 6, "tangency": 6, "continuity": 6, "exact_path": 6,
    "global_certificate": 6, "global_search": 6, "closed_form": 6, "max_margin": 6,
    "vector_output": 6,
    "multipliers": 6, "margin_conditions": 6, "wall_crossing": 6,
    "estimators": 7, "plotting": 7, "datasets": 7, "cli": 7, "__main__": 7,
    "__init__": 8,
}  # fmt: skip
# (who imports, what is imported) on the same floor.
SIDEWAYS = {
    ("networks", "losses"),
    ("cones", "projection"),
    ("patterns", "cones"),
    ("patterns", "enumeration"),
    ("loops", "status"),
    ("rows", "numerics"),
    ("solution", "optimality"),
    ("lane_steps", "solve"),
    ("lanes", "solve"),
    ("lanes", "lane_steps"),
    ("grid", "solve"),
    ("grid", "lanes"),
    ("memory", "solve"),
    ("memory", "grid"),
    ("memory", "lanes"),
    ("driver", "solve"),
    ("path", "solve"),
    ("path", "driver"),
    ("selection", "optimal_set"),
    ("sampling", "optimal_set"),
    ("irreducible", "optimal_set"),
    ("irreducible", "selection"),
    ("pruning", "irreducible"),
    ("sensitivity", "optimal_set"),
    ("connectivity", "slots"),
    ("descent", "connectivity"),
    ("descent", "slots"),
    ("descent", "symmetries"),
    ("breakpoints", "structure"),
    ("continuity", "structure"),
    ("continuity", "breakpoints"),
    ("exact_path", "structure"),
    ("exact_path", "breakpoints"),
    ("exact_path", "continuity"),
    ("exact_path", "tangency"),
    ("tangency", "structure"),
    ("tangency", "breakpoints"),
    ("sensitivity", "structure"),
    ("improvement", "mapping"),
    ("improvement", "irreducible"),
    ("max_margin", "mapping"),
    ("max_margin", "multipliers"),
    ("global_certificate", "mapping"),
    ("global_search", "global_certificate"),
    ("global_search", "mapping"),
    ("master", "path"),
    ("master", "solve"),
    ("wall_crossing", "mapping"),
    ("cli.path", "datasets.__init__"),
    ("cli.path", "plotting"),
    ("__main__", "cli.__init__"),
}
# What the modules of a folder share. Each of these imports those before it, every other module of
# the folder any of them.
PARTS = {
    "solvers": (
        "base",
        "coupling",
        "newton_system",
        "task",
        "block_steps",
        "lagrangian",
        "near_walls",
        "working_set",
        "rounds",
        "splitting",
    ),
    "polar": (
        "arrangement",
        "sphere",
        "zonotope",
        "spikes",
        "exact",
        "ascent",
        "relaxations",
        "semidefinite",
        "branch",
    ),
    "closed_form": ("answer", "columns", "margin", "rank_one"),
    "datasets": ("rounding", "delimited", "tables", "splits"),
    "cli": ("console", "output", "path", "app"),
}
TOP_FLOOR = 7
MAX_LINES = 400
OPTIONAL = {"matplotlib", "sklearn", "typer", "rich"}


def modules_of(package: Path) -> dict[str, Path]:
    """Dotted names inside the package, for example `solvers.base`; a package is `x.__init__`."""
    return {
        ".".join(path.relative_to(package).with_suffix("").parts): path
        for path in sorted(package.rglob("*.py"))
    }


def floor_of(module: str) -> int | None:
    return FLOORS.get(module.split(".")[0])


def imported_names(tree: ast.AST, module: str) -> list[str]:
    """Every absolute dotted name that a file imports, at any depth of the code."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = ["jaxrelu", *module.split(".")][: -node.level]
                base = ".".join([*parents, base] if base else parents)
            names += [f"{base}.{alias.name}" for alias in node.names]
    return names


def inner_module(name: str, modules: dict[str, Path]) -> str | None:
    """The module of the package that an imported name loads, or None for another package."""
    first, *parts = name.split(".")
    if first != "jaxrelu":
        return None
    while parts:
        if ".".join(parts) in modules:
            return ".".join(parts)
        if ".".join([*parts, "__init__"]) in modules:
            return ".".join([*parts, "__init__"])
        if len(parts) == 1 and parts[0] in FLOORS:
            return parts[0]
        parts.pop()
    return "__init__"


def edge_inside_is_allowed(folder: str, source: str, target: str) -> bool:
    parts = PARTS.get(folder, ())
    # Only the folder's front lists all its members.
    before = parts.index(source) if source in parts else len(parts)
    return source == "__init__" or target in parts[:before]


def edge_is_allowed(source: str, target: str) -> bool:
    if source == target:
        return True
    source_floor, target_floor = floor_of(source), floor_of(target)
    if source_floor is None or target_floor is None:
        return False
    if target_floor != source_floor:
        return target_floor < source_floor
    source_folder, _, source_part = source.partition(".")
    target_folder, _, target_part = target.partition(".")
    if source_part and source_folder == target_folder:
        return edge_inside_is_allowed(source_folder, source_part, target_part)
    return (source, target) in SIDEWAYS


def import_faults(package: Path) -> list[str]:
    modules = modules_of(package)
    faults = []
    for module, path in modules.items():
        if floor_of(module) is None:
            faults.append(f"{module} has no floor")
        for name in imported_names(ast.parse(path.read_text()), module):
            target = inner_module(name, modules)
            if target is not None and not edge_is_allowed(module, target):
                faults.append(f"{module} imports {target}")
    return faults


def private_jax_faults(package: Path) -> list[str]:
    """Imports and attribute chains that reach an underscore inside jax, and any jaxlib."""

    def is_private(part: str) -> bool:
        return part.startswith("_") and not part.endswith("__")

    faults = []
    for module, path in modules_of(package).items():
        tree = ast.parse(path.read_text())
        for name in imported_names(tree, module):
            first, *parts = name.split(".")
            if first == "jaxlib" or (first == "jax" and any(map(is_private, parts))):
                faults.append(f"{module} imports {name}")
        bound = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.split(".")[0] == "jax":
                        bound.add(alias.asname or "jax")
            elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "jax":
                bound |= {alias.asname or alias.name for alias in node.names}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and is_private(node.attr):
                root = node.value
                while isinstance(root, ast.Attribute):
                    root = root.value
                if isinstance(root, ast.Name) and root.id in bound:
                    faults.append(f"{module} uses {ast.unparse(node)}")
    return faults


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def optional_dependency_faults(package: Path) -> list[str]:
    """Optional packages are imported inside functions of the top floor, and nowhere else."""
    faults = []
    for module, path in modules_of(package).items():
        tree = ast.parse(path.read_text())
        # What does not run at import: bodies of functions, and imports for type checkers.
        lazy = {
            node
            for body in ast.walk(tree)
            if isinstance(body, ast.FunctionDef | ast.AsyncFunctionDef) or is_type_checking(body)
            for node in ast.walk(body)
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            for name in imported_names(node, module):
                if name.split(".")[0] not in OPTIONAL:
                    continue
                if floor_of(module) != TOP_FLOOR:
                    faults.append(f"{module} imports {name} below the top floor")
                elif node not in lazy:
                    faults.append(f"{module} imports {name} at module level")
    return faults


def registration_faults(package: Path) -> list[str]:
    """`jax.tree_util.register_dataclass` lets jit confuse two classes: see `jaxrelu.pytrees`."""
    return [
        f"{module} uses register_dataclass, use jaxrelu.pytrees.register"
        for module, path in modules_of(package).items()
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Attribute) and node.attr == "register_dataclass")
        or (isinstance(node, ast.alias) and node.name == "register_dataclass")
    ]


def length_faults(package: Path) -> list[str]:
    lengths = {
        name: len(path.read_text().splitlines()) for name, path in modules_of(package).items()
    }
    return [f"{name} has {lines} lines" for name, lines in lengths.items() if lines > MAX_LINES]


@pytest.mark.parametrize(
    "faults",
    [
        import_faults,
        private_jax_faults,
        optional_dependency_faults,
        registration_faults,
        length_faults,
    ],
)
def test_package_keeps_its_architecture(faults):
    assert "numerics" in modules_of(PACKAGE)  # an empty folder would pass everything
    assert faults(PACKAGE) == []


@pytest.mark.parametrize(
    ("module", "line", "faults"),
    [
        ("numerics", "from jaxrelu.losses import SquaredLoss", import_faults),
        ("numerics", "import jaxrelu.losses", import_faults),
        ("numerics", "from . import losses", import_faults),
        ("numerics", "from .losses import SquaredLoss", import_faults),
        ("numerics", "def f():\n    from jaxrelu import losses", import_faults),
        ("losses", "from jaxrelu.networks import Network", import_faults),
        ("proximal", "from jaxrelu import anything", import_faults),
        ("solvers.newton", "from jaxrelu.solvers.other import f", import_faults),
        ("solvers.newton", "from .other import f", import_faults),
        ("solvers.newton", "from jaxrelu import solvers", import_faults),
        ("solvers.base", "from .other import f", import_faults),
        ("solvers.base", "from .working_set import f", import_faults),
        ("optimality", "from jaxrelu.solution import Solution", import_faults),
        ("solve", "from jaxrelu.path import Path", import_faults),
        ("nowhere", "x = 1", import_faults),
        ("losses", "from jax._src import core", private_jax_faults),
        ("losses", "import jax._src.core", private_jax_faults),
        ("losses", "import jaxlib", private_jax_faults),
        ("losses", "x = jax._src", private_jax_faults),
        ("losses", "x = jnp.linalg._private(1)", private_jax_faults),
        ("losses", "def f():\n    import sklearn.datasets", optional_dependency_faults),
        ("plotting", "import matplotlib.pyplot as plt", optional_dependency_faults),
        ("plotting", "try:\n    import rich\nexcept ImportError:\n    rich = None",
         optional_dependency_faults),
        ("losses", "@jax.tree_util.register_dataclass\nclass A: pass", registration_faults),
        ("losses", "from jax.tree_util import register_dataclass", registration_faults),
        ("losses", "x = 1\n" * 400, length_faults),
    ],
)  # fmt: skip
def test_checker_sees_a_planted_fault(tmp_path, module, line, faults):
    package = tmp_path / "jaxrelu"
    # Only the small floors: the copy must be clean before the fault is planted.
    for name in ("pytrees", "numerics", "losses", "networks", "proximal"):
        package.mkdir(exist_ok=True)
        shutil.copy(PACKAGE / f"{name}.py", package)
    (package / "solvers").mkdir()
    (package / "solvers" / "__init__.py").write_text("from jaxrelu.solvers import base, other\n")
    (package / "solvers" / "base.py").write_text("")
    (package / "solvers" / "working_set.py").write_text("from jaxrelu.solvers.base import f\n")
    (package / "solvers" / "other.py").write_text("from jaxrelu.solvers.working_set import f\n")
    assert faults(package) == []
    path = package.joinpath(*module.split(".")).with_suffix(".py")
    path.write_text((path.read_text() if path.exists() else "") + "\n" + line + "\n")
    assert len(faults(package)) == 1


def test_lazy_optional_import_on_the_top_floor_is_fine(tmp_path):
    (tmp_path / "cli.py").write_text(
        "if TYPE_CHECKING:\n    import rich\n\ndef main():\n    import typer\n"
    )
    assert optional_dependency_faults(tmp_path) == []


def import_in_a_fresh_process(folder: Path) -> subprocess.CompletedProcess[str]:
    # A platform that does not exist makes any array or device query at import fail.
    code = (
        "import jax\n"
        "jax.config.update('jax_platforms', 'no_such_platform')\n"
        "before = jax.config.jax_enable_x64\n"
        "import jaxrelu\n"
        "assert jaxrelu.__file__.startswith(FOLDER), jaxrelu.__file__\n"
        "assert jax.config.jax_enable_x64 == before, 'x64 was flipped'\n"
        "try:\n"
        "    jax.devices()\n"
        "except RuntimeError:\n"
        "    print('import started nothing')\n"
    ).replace("FOLDER", repr(str(folder)))
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.skipif(not (PACKAGE / "__init__.py").exists(), reason="no jaxrelu/__init__.py")
def test_import_neither_flips_x64_nor_starts_a_backend():
    run = import_in_a_fresh_process(PACKAGE.parent)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "import started nothing"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("jax.config.update('jax_enable_x64', True)", "x64 was flipped"),
        ("jax.numpy.zeros(1)", "no_such_platform"),
    ],
)
def test_import_check_sees_a_planted_fault(tmp_path, line, message):
    (tmp_path / "jaxrelu").mkdir()
    (tmp_path / "jaxrelu" / "__init__.py").write_text(f"import jax\n{line}\n")
    run = import_in_a_fresh_process(tmp_path)
    assert run.returncode != 0
    assert message in run.stderr
