"""The command line. `chainrule.cli.main.main` is the entry point."""
