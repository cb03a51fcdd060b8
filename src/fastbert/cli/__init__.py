"""The command line: each command calls one function of the library and shows what came of it.

What the commands and their options are stands in `commands`, how a command may end in `run`. Help
and usage errors must be instant, so nothing here imports torch, transformers or scikit-learn
before a command needs them.
"""

from fastbert.cli.commands import app
from fastbert.cli.run import main

__all__ = ["app", "main"]
