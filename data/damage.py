"""What is wrong with a picture file."""


class Damage(ValueError):
    """A picture file is damaged; the text is what "this PNG" goes on with: "is cut short after 100 bytes"."""
