"""From files to examples, and what is checked about them; no tokens, models or torch."""
