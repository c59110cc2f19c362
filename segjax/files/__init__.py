"""Files of users and of strangers: read within limits, written whole or not at all."""
