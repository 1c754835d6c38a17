"""Character cards of AI*Shoujo, Honey Select 2, Koikatsu and Koikatsu Sunshine. What they hold: docs/cards.md."""
