"""GGUF files for llama.cpp and what is built on it: whole models and LoRA adapters."""
