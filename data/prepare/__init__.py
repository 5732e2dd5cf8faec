"""Data sets made from what others publish or draw: knows archives and annotation tools, nothing of models."""
