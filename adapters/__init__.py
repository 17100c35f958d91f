"""The model and its adapters: loading, training, composing, generating, keeping."""
