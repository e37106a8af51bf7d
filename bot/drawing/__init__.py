"""Pictures for people: cards, letters, portraits. Knows nothing about the login."""
