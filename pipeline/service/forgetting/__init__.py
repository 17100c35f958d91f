"""Finding everything that saw a text, removing it, and showing that it has gone."""
