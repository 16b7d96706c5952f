"""What the pages of edge and gate share: frame, style sheet, languages, hashed assets. Knows neither of them."""
