"""From a file's variables to a network's: select, recognise, assign."""
