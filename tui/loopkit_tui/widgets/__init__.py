"""What is drawn: each widget has one frozen value and draws it."""
