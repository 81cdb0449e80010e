"""What the words of the ``bisam`` command do, a module for each group of them."""
