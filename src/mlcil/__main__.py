"""``python -m mlcil``."""

from mlcil.cli import main

raise SystemExit(main())
