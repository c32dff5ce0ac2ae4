"""Alignment data: conversations, rankings, labelled responses and prompts, from the user's files or from documents."""
