"""All optimal networks of one program."""
