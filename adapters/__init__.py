"""The model and its adapters: loading, training, protecting, composing, generating, exporting."""

import logging
import os

# on import it warns that an optional hub kernel is missing, which is not needed
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
# ORPO is one of TRL's experimental trainers, which warn at every import
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
