"""The subcommands of `stackproof`, one module each.

A module here is a subcommand as soon as it exists. It has a one-line docstring (the help text), and

    def configure(parser: argparse.ArgumentParser) -> None   # its options
    def run(args: argparse.Namespace) -> int                 # does it, returns the exit code

The module's name is the subcommand's (`_` becomes `-`). All modules are imported to show the help,
so whatever is slow to import is imported in `run`.
"""
