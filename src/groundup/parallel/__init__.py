"""The model on real devices. Applied from outside: nothing in `model/` knows of it."""
