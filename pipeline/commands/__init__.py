"""The commands of `molt`, by what they are for."""
