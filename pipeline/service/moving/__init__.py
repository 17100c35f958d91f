"""Moving a personality and its tasks to another base model, and the proof that it is the same character there."""
