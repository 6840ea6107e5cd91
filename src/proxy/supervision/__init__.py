"""The supervisor and what it owns: what each event of ITH means for what is at work."""
