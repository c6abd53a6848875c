"""`python -m trine`: the program, for launchers such as torchrun."""

from trine.cli.main import main

main()
