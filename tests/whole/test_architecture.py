"""The package as a building: the folders are its floors, and imports go down.

The folder of a module says what it may import; nothing runs up, sideways or in a circle. Files stay
small, nothing is private, nothing happens at import.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "jaxrelu"

# The edges, where data come in and answers go out: files at the root, or folders.
EDGES = ("datasets", "plotting", "estimators", "cli")
PIECES = ("core", "geometry", "losses")
PROBLEM = (*PIECES, "networks", "programs", "solvers", "paths")
MEANING = ("optimal_sets", "global_optimality", "margins", "closed_form")
# Whoever stands in these folders may import its own folder and those.
FLOORS = [
    (("core",), ()),
    (("geometry", "losses"), ("core",)),
    (("networks",), PIECES),
    (("programs",), PIECES),
    (("solvers",), (*PIECES, "programs")),
    (("paths",), (*PIECES, "programs", "solvers")),
    (("optimal_sets", "global_optimality"), PROBLEM),
    (("margins", "closed_form"), (*PROBLEM, "global_optimality.polar_gauge")),
    (EDGES, (*PROBLEM, *MEANING)),
]
# Places inside these folders of which more or less holds.
INSIDE = {
    "geometry.host": ("core.aliases",),  # and no JAX
    "global_optimality.polar_gauge": ("core", "geometry"),
    "programs.mapping": (*PIECES, "networks", "programs"),
    "programs.vector_mapping": (*PIECES, "networks", "programs"),
    "estimators": (*PROBLEM, *MEANING, "datasets", "plotting"),
    "cli": (*PROBLEM, *MEANING, "datasets", "plotting"),
    "__init__": (*PROBLEM, *MEANING, *EDGES),
    "__main__": ("cli",),
}
MAY_IMPORT = {folder: below for folders, below in FLOORS for folder in folders} | INSIDE
# Upper rooms of a folder, that the rest of it does not import; only its front lists them.
UPPER_ROOMS = ("solvers.active_newton", "paths.exact")
WITHOUT_JAX = "geometry.host"
MAX_LINES = 400
OPTIONAL = {"matplotlib", "sklearn", "threadpoolctl", "typer", "rich"}


def modules_of(package: Path) -> dict[str, Path]:
    """Dotted names inside the package, for example `solvers.base`; a package is `x.__init__`."""
    return {
        ".".join(path.relative_to(package).with_suffix("").parts): path
        for path in sorted(package.rglob("*.py"))
    }


def is_in(module: str, place: str) -> bool:
    """Whether a module is a place or stands in it; places are modules or folders, dotted."""
    return module == place or module.startswith(place + ".")


def home_of(module: str) -> str | None:
    """The innermost place of `MAY_IMPORT` that a module stands in."""
    return max((place for place in MAY_IMPORT if is_in(module, place)), key=len, default=None)


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
        parts.pop()
    return "__init__"


def imported_modules(module: str, path: Path, modules: dict[str, Path]) -> set[str]:
    """Modules of the package that a file imports by name."""
    names = imported_names(ast.parse(path.read_text()), module)
    return {inner for name in names if (inner := inner_module(name, modules))} - {module}


def import_is_allowed(source: str, target: str) -> bool:
    home = home_of(source)
    if home is None or not any(is_in(target, place) for place in (home, *MAY_IMPORT[home])):
        return False
    for room in UPPER_ROOMS:
        folder = room.split(".")[0]
        below = is_in(source, folder) and not is_in(source, room)
        if is_in(target, room) and below and source != f"{folder}.__init__":
            return False
    return True


def import_faults(package: Path) -> list[str]:
    modules = modules_of(package)
    faults = []
    for module, path in modules.items():
        if home_of(module) is None:
            faults.append(f"{module} stands in no folder")
            continue
        for target in sorted(imported_modules(module, path, modules)):
            if not import_is_allowed(module, target):
                faults.append(f"{module} imports {target}")
        for name in imported_names(ast.parse(path.read_text()), module):
            if is_in(module, WITHOUT_JAX) and name.split(".")[0] in ("jax", "jaxlib"):
                faults.append(f"{module} imports {name}")
    return faults


def circle_faults(package: Path) -> list[str]:
    """Files that import each other, whatever their folders."""
    modules = modules_of(package)
    edges = {
        module: sorted(imported_modules(module, path, modules)) for module, path in modules.items()
    }
    faults: list[str] = []
    done: set[str] = set()

    def visit(module: str, way: list[str]) -> None:
        if module in way:
            faults.append(" imports ".join([*way[way.index(module) :], module]))
        elif module not in done:
            for target in edges[module]:
                visit(target, [*way, module])
            done.add(module)

    for module in modules:
        visit(module, [])
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
    """Optional packages are imported inside functions of the edges, and nowhere else."""
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
                if module.split(".")[0] not in EDGES:
                    faults.append(f"{module} imports {name} and is no edge")
                elif node not in lazy:
                    faults.append(f"{module} imports {name} at module level")
    return faults


def registration_faults(package: Path) -> list[str]:
    """`jax.tree_util.register_dataclass` lets jit confuse two classes: see `core.pytrees`."""
    return [
        f"{module} uses register_dataclass, use jaxrelu.core.pytrees.register"
        for module, path in modules_of(package).items()
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Attribute) and node.attr == "register_dataclass")
        or (isinstance(node, ast.alias) and node.name == "register_dataclass")
    ]


def jit_faults(package: Path) -> list[str]:
    """What takes a loss, itself or in a program, is compiled with the loss's class in the key."""
    return [
        f"{module}.{node.name} takes a loss under jax.jit, use jaxrelu.core.pytrees.compiled"
        for module, path in modules_of(package).items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
        and any("jax.jit" in ast.unparse(decorator) for decorator in node.decorator_list)
        and {"Program", "Loss"}
        & {ast.unparse(arg.annotation) for arg in node.args.args if arg.annotation is not None}
    ]


def length_faults(package: Path) -> list[str]:
    lengths = {
        name: len(path.read_text().splitlines()) for name, path in modules_of(package).items()
    }
    return [f"{name} has {lines} lines" for name, lines in lengths.items() if lines > MAX_LINES]


CHECKS = [
    import_faults,
    circle_faults,
    private_jax_faults,
    optional_dependency_faults,
    registration_faults,
    jit_faults,
    length_faults,
]


@pytest.mark.parametrize("faults", CHECKS)
def test_package_keeps_its_architecture(faults):
    assert "core.numerics" in modules_of(PACKAGE)  # an empty folder would pass everything
    assert faults(PACKAGE) == []


# A small package with one file a place; a planted fault is a line in one of them.
SMALL = {
    "__init__": "from jaxrelu import closed_form\nfrom jaxrelu.core.numerics import f",
    "__main__": "from jaxrelu.cli import main",
    "core.numerics": "",
    "core.aliases": "",
    "core.loops": "from jaxrelu.core.numerics import f",
    "geometry.cones": "from jaxrelu.geometry.host.bits import f",
    "geometry.patterns": "from .cones import f",
    "geometry.host.bits": "from jaxrelu.core.aliases import Floats\nimport numpy",
    "losses.__init__": "from jaxrelu.losses.base import Loss as Loss",
    "losses.base": "from jaxrelu.core.loops import f",
    "networks.network": "from jaxrelu.losses import Loss",
    "programs.program": "from ..geometry import patterns",
    "programs.mapping": "import jaxrelu.networks.network",
    "solvers.__init__": "from jaxrelu.solvers.active_newton.solver import f",
    "solvers.base": "from jaxrelu.programs.program import f",
    "solvers.active_newton.solver": "from jaxrelu.solvers.base import f",
    "solvers.augmented_lagrangian.coupling": "from jaxrelu.solvers.base import f",
    "paths.solve": "from jaxrelu.solvers.active_newton.solver import f",
    "paths.exact.breakpoints": "from jaxrelu.paths.solve import f",
    "optimal_sets.members": "from jaxrelu.networks.network import f",
    "global_optimality.refinement": "from jaxrelu.paths.solve import f",
    "global_optimality.polar_gauge.gauge": "from jaxrelu.geometry.cones import f",
    "margins.max_margin": "from jaxrelu.global_optimality.polar_gauge.gauge import f",
    "closed_form.__init__": "from jaxrelu.closed_form.answer import f",
    "closed_form.answer": "",
    "datasets": "def load():\n    import sklearn.datasets",
    "plotting.paths": "if TYPE_CHECKING:\n    import matplotlib\nfrom jaxrelu.core import loops",
    "cli.app": "from jaxrelu import datasets, plotting\n\ndef main():\n    import typer",
}


def build(package: Path, texts: dict[str, str]) -> None:
    for module, text in texts.items():
        path = package.joinpath(*module.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
        (path.parent / "__init__.py").touch()


@pytest.mark.parametrize(
    ("module", "line", "faults"),
    [
        # Up, in every way of writing it.
        ("core.numerics", "from jaxrelu.losses import SquaredLoss", import_faults),
        ("core.numerics", "import jaxrelu.losses", import_faults),
        ("core.numerics", "from .. import losses", import_faults),
        ("core.numerics", "from ..losses import SquaredLoss", import_faults),
        ("core.numerics", "def f():\n    from jaxrelu import losses", import_faults),
        ("core.numerics", "from jaxrelu import anything", import_faults),
        ("losses.base", "from jaxrelu.networks.network import Network", import_faults),
        ("programs.program", "from jaxrelu.solvers.base import Solver", import_faults),
        ("solvers.base", "from jaxrelu.paths.solve import solve", import_faults),
        ("paths.solve", "from jaxrelu.optimal_sets.members import select", import_faults),
        ("global_optimality.refinement", "from jaxrelu.margins import max_margin", import_faults),
        ("__main__", "from jaxrelu.core.numerics import eps", import_faults),
        # Sideways.
        ("geometry.cones", "from jaxrelu.losses.base import Loss", import_faults),
        ("losses.base", "from jaxrelu.geometry.cones import project", import_faults),
        ("networks.network", "from jaxrelu.programs.program import fit", import_faults),
        ("programs.program", "from jaxrelu.networks.network import Network", import_faults),
        ("solvers.base", "from jaxrelu.networks.network import Network", import_faults),
        ("optimal_sets.members", "from jaxrelu.global_optimality import refinement", import_faults),
        ("global_optimality.refinement", "from jaxrelu.optimal_sets import members", import_faults),
        ("margins.max_margin", "from jaxrelu.global_optimality import refinement", import_faults),
        ("margins.max_margin", "from jaxrelu.closed_form.answer import f", import_faults),
        ("datasets", "from jaxrelu.plotting.paths import plot_path", import_faults),
        ("plotting.paths", "from jaxrelu.cli.app import main", import_faults),
        ("closed_form.answer", "from jaxrelu import datasets", import_faults),
        # The walls inside folders.
        ("geometry.host.bits", "import jax.numpy as jnp", import_faults),
        ("geometry.host.bits", "from jaxrelu.core.numerics import eps", import_faults),
        ("geometry.host.bits", "from jaxrelu.geometry import patterns", import_faults),
        ("global_optimality.polar_gauge.gauge", "from jaxrelu.losses.base import Loss",
         import_faults),
        ("global_optimality.polar_gauge.gauge", "from ..refinement import f", import_faults),
        ("solvers.augmented_lagrangian.coupling", "from ..active_newton.solver import f",
         import_faults),
        ("solvers.admm", "from jaxrelu.solvers.active_newton import solver", import_faults),
        ("paths.path", "from jaxrelu.paths.exact.breakpoints import walk", import_faults),
        # No folder.
        ("nowhere", "x = 1", import_faults),
        # Circles: of two, of three, and through a folder's front.
        ("core.numerics", "from jaxrelu.core.loops import f", circle_faults),
        ("geometry.host.bits", "from jaxrelu.geometry.patterns import f", circle_faults),
        ("losses.base", "def f():\n    from jaxrelu.losses import Loss", circle_faults),
        # All else.
        ("losses.base", "from jax._src import core", private_jax_faults),
        ("losses.base", "import jax._src.core", private_jax_faults),
        ("losses.base", "import jaxlib", private_jax_faults),
        ("losses.base", "import jax\nx = jax._src", private_jax_faults),
        ("losses.base", "import jax.numpy as jnp\nx = jnp.linalg._private(1)", private_jax_faults),
        ("losses.base", "def f():\n    import sklearn.datasets", optional_dependency_faults),
        ("plotting.paths", "import matplotlib.pyplot as plt", optional_dependency_faults),
        ("datasets", "import sklearn", optional_dependency_faults),
        ("cli.app", "try:\n    import rich\nexcept ImportError:\n    rich = None",
         optional_dependency_faults),
        ("losses.base", "@jax.tree_util.register_dataclass\nclass A: pass", registration_faults),
        ("losses.base", "from jax.tree_util import register_dataclass", registration_faults),
        ("programs.program", "@jax.jit\ndef f(program: Program): pass", jit_faults),
        ("losses.base", "@partial(jax.jit, static_argnums=1)\ndef f(loss: Loss, n: int): pass",
         jit_faults),
        ("losses.base", "x = 1\n" * 400, length_faults),
    ],
)  # fmt: skip
def test_checker_sees_a_planted_fault(tmp_path, module, line, faults):
    build(tmp_path, SMALL | {module: SMALL.get(module, "") + "\n" + line})
    assert len(faults(tmp_path)) == 1


@pytest.mark.parametrize("faults", CHECKS)
def test_checker_sees_no_fault_where_there_is_none(tmp_path, faults):
    build(tmp_path, SMALL)
    assert faults(tmp_path) == []


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
