"""`python -m ext_authz`."""

import sys

from ext_authz.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
