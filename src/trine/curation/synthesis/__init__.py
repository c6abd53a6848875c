"""Training examples written by an LLM: tasks, prompts, calls, checks."""
