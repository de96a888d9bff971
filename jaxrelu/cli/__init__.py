"""The command line: `jaxrelu`, or `python -m jaxrelu`."""

from jaxrelu.cli.app import main as main
