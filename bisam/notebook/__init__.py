"""What the notebooks are made of: parameters, tables and figures."""
