"""`python -m imagen_jax` is the command `imagen-jax`."""

import sys

from imagen_jax.commands import main

sys.exit(main.main())
