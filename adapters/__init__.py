"""The model and its adapters: loading, training, composing, generating, keeping."""

import logging

# on import it says that an optional hub kernel is missing; nothing here needs it
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
