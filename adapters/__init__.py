"""The model and its adapters: loading, training, composing, generating, keeping."""

import logging
import os

# on import it says that an optional hub kernel is missing; nothing here needs it
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
# ORPO lives among TRL's experimental trainers, which say so at every import
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
