"""The development inbox: plays the citizens' phones in a process of its own, and shows what they received."""
