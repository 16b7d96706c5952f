"""Enters citizens into the register and changes what is registered about them."""
