"""``python -m bisam.gpu --minutes 15 --out DIR``"""

import sys

from .session import main

if __name__ == "__main__":  # stages are processes that read this file again
    sys.exit(main())
