"""The supervisor and its parts: they decide the effect of each event of ITH on the work."""
