"""See a run: a document of everything at a glance, judgements of it, and lines while it goes on."""
