"""The command line: each command calls one function of the library and shows what came of it.

The commands stand in `learning`, `answering` and `shipping`, their options in `options` and `goal`,
how a command may end in `run`. Help
and usage errors must be instant, so nothing here imports torch, transformers or scikit-learn
before a command needs them.
"""

from fastbert.cli.app import app
from fastbert.cli.run import main

__all__ = ["app", "main"]
