"""Studies behind the docs: each prints or writes a table or a page."""
