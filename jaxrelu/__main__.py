"""`python -m jaxrelu` is the command `jaxrelu`."""

from jaxrelu.cli import main

if __name__ == "__main__":
    main()
