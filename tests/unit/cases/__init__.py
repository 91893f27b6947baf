"""Files and requests as people have them."""
