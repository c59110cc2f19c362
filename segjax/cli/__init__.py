"""The command line: `segjax SUBCOMMAND ...`, and `cli.run` for scripts."""

from segjax.cli.main import main, run

__all__ = ["main", "run"]
