"""The connections pages: lists, forms and sign-in."""
