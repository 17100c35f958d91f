"""What goes into training and evaluation: specs, conversations, pairs, replay, tasks, embedded assets."""
