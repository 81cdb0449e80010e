"""The table of methods with its sources, and the parts that one method alone needs."""
