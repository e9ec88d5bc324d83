"""`python -m maskloop_studio` is `maskloop`."""

from maskloop_studio.cli.main import main

main()
