"""The command line's application. Each command is a file beside this one, registered here.

Needs the extra `cli` (typer, rich, matplotlib, scikit-learn), imported when a command runs.
"""

import importlib.metadata
import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Annotated, Any, NoReturn, get_type_hints

from jaxrelu.cli import info, path
from jaxrelu.cli.console import accept_any_text, discard_output, stop


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and exits with its code.

    Args:
        arguments: the words after the program's name; those of the process when None.

    Raises:
        SystemExit: 0 when every lam is OPTIMAL, 1 when one is not, 2 for bad input or output that
            cannot be written.
    """
    missing = [name for name in ("typer", "rich") if importlib.util.find_spec(name) is None]
    if missing:
        stop(f"the command line needs {' and '.join(missing)}: pip install 'jaxrelu[cli]'.")
    accept_any_text()
    try:
        _build_app()(list(sys.argv[1:] if arguments is None else arguments), prog_name="jaxrelu")
    except OSError as error:  # a full disk behind it; the files of a run have their own sentences
        discard_output()
        what = error.filename or "the standard output"
        stop(f"{what} cannot be read or written ({error.strerror or error}).")
    raise SystemExit(0)


def _build_app() -> Any:
    """The typer application. Its imports are here so that the library does without typer."""
    import typer

    app = typer.Typer(
        name="jaxrelu",
        help="Two-layer ReLU networks trained to certified global optimality.",
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )

    def show_version(wanted: bool) -> None:
        if wanted:
            try:
                typer.echo(f"jaxrelu {importlib.metadata.version('jaxrelu')}")
            except importlib.metadata.PackageNotFoundError:
                typer.echo("jaxrelu, not installed: run from its source")
            raise typer.Exit

    @app.callback()
    def root(
        version: Annotated[
            bool,
            typer.Option(
                "--version", help="Print the version.", callback=show_version, is_eager=True
            ),
        ] = False,
    ) -> None:
        pass

    app.command("path")(_command(path.Options, path.run_path))
    app.command("info")(_command(info.Options, info.run_info))
    return app


def _command(options: type, run: Callable[[Any], int]) -> Callable[..., None]:
    """The function that typer reads a command off: its arguments are the fields of `options`."""
    import typer

    # The annotations of the fields are text that names typer, which only this function imports.
    hints = get_type_hints(options, localns={"typer": typer}, include_extras=True)

    def command(**words: Any) -> None:
        raise typer.Exit(run(options(**words)))

    command.__doc__ = options.__doc__
    command.__annotations__ = hints
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=hints[field.name],
            )
            for field in fields(options)
        ]
    )
    return command
