"""The maths: a decoder written for one device, its losses, its published form."""
