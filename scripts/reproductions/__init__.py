"""One module per family of figures; each has `SUBCOMMANDS`."""
