"""The connections page, for people: lists, forms and sign-in."""
