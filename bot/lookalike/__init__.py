"""A photo in, cards with the people it resembles out."""
