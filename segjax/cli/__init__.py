"""The command line: `segjax SUBCOMMAND ...`, and `cli.run` for scripts."""

from segjax.cli.main import main as main
from segjax.cli.main import run as run
